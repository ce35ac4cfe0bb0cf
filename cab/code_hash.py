"""Hash of the code that determines a number.

A changed mechanism must never reuse old numbers, and a reworded comment must not throw away a
night of training. So the hash covers the syntax of a module - without comments, docstrings and the
info record - and of every module that it imports, directly or not, from its own package or folder.
"""

from __future__ import annotations

import ast
import hashlib
from functools import lru_cache
from pathlib import Path

from cab.source_info import module_path

_RECORDS = ("register_attention", "register_task")


def code_hash(target: str) -> str:
    """Hash of the code behind ``module:Class``, ``module`` or ``/path/file.py:Class``."""
    location = target.rpartition(":")[0] or target
    if location.endswith(".py"):
        start, folder = Path(location), Path(location).parent
        modules = _reach(start, "", folder)
    else:
        path = module_path(location)
        modules = {} if path is None else _reach(path, location, None)
    digest = hashlib.sha256()
    for name, path in sorted(modules.items()):
        digest.update(f"{name}\0{_normal_form(path, path.stat().st_mtime_ns)}\0".encode())
    return digest.hexdigest()[:16]


def _reach(start: Path, module: str, folder: Path | None) -> dict[str, Path]:
    """Modules reachable through imports within the start's top-level package or folder."""
    found: dict[str, Path] = {}
    pending = [(module or start.stem, start)]
    top = module.split(".")[0]
    while pending:
        name, path = pending.pop()
        if name in found:
            continue
        found[name] = path
        for imported in _imports(path, path.stat().st_mtime_ns):
            target = _within(imported, top, folder)
            if target is not None:
                pending.append((imported, target))
    return found


def _within(module: str, top: str, folder: Path | None) -> Path | None:
    if folder is None:
        return module_path(module) if module.split(".")[0] == top else None
    for candidate in (
        folder.joinpath(*module.split(".")).with_suffix(".py"),
        folder.joinpath(*module.split("."), "__init__.py"),
    ):
        if candidate.is_file():
            return candidate
    return None


@lru_cache(maxsize=4096)
def _imports(path: Path, _mtime_ns: int) -> tuple[str, ...]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # `from package import module` may name a module, so both readings are followed.
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(names)


@lru_cache(maxsize=4096)
def _normal_form(path: Path, _mtime_ns: int) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.ClassDef):
            node.decorator_list = [d for d in node.decorator_list if not _is_record(d)]
    return ast.unparse(tree)


def _is_record(node: ast.expr) -> bool:
    called = node.func if isinstance(node, ast.Call) else node
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    return name in _RECORDS
