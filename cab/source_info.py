"""Read info records out of a module's source, without importing it.

Importing a mechanism imports torch, which takes seconds; listing a hundred mechanisms must feel
instant. A registration is one decorator in front of a class, so its text is enough::

    @register_attention(AttentionInfo(id="mine", ...))
    class Mine(Attention): ...

The argument of the decorator is evaluated with the vocabulary of ``cab.info`` and the literal
constants of its module (``_WHY = "..."``) in scope, and nothing else. A record that needs more than
that (something imported, say) is reported as None, and the caller falls back on the import.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from cab import info as vocabulary
from cab.own_code import own_spec
from cab.patterns import Pattern

_SCOPE: dict[str, Any] = {
    "__builtins__": {"tuple": tuple, "dict": dict, "True": True, "False": False, "None": None},
    "Pattern": Pattern,
    **{
        name: getattr(vocabulary, name)
        for name in (
            "AttentionInfo",
            "Family",
            "Grade",
            "Kind",
            "Metric",
            "Option",
            "Reference",
            "Scale",
            "TaskInfo",
        )
    },
}


@dataclass(frozen=True)
class Registered:
    """A class at the top level of a module that carries a decorator."""

    class_name: str
    info: Any | None
    """What the decorator was given; None where that takes an import to know"""


def module_path(module: str) -> Path | None:
    """Source file of a dotted module, found without importing it or its parent packages."""
    top, *rest = module.split(".")
    spec = _top_level(top)
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for root in spec.submodule_search_locations or ():
        found = module_below(Path(root), rest)
        if found is not None:
            return found
    return None


def package_folders(package: str) -> list[Path]:
    """Folders that a dotted package's modules lie in; empty where there is no such package."""
    top, *rest = package.split(".")
    spec = _top_level(top)
    places = (spec.submodule_search_locations or ()) if spec is not None else ()
    folders = [Path(place).joinpath(*rest) for place in places]
    return [folder for folder in folders if folder.is_dir()]


def module_below(folder: Path, parts: list[str]) -> Path | None:
    """The file of the module ``parts`` (``["pkg", "mod"]``) below a folder."""
    stem = folder.joinpath(*parts)
    for candidate in (stem.with_suffix(".py"), stem / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def read_info(path: Path, class_name: str, decorator: str) -> Any | None:
    """The info record that ``@decorator(...)`` gives to ``class_name`` in a source file.

    Returns None where there is no such decorator, its argument is not self-contained, or the file
    is no Python.
    """
    try:
        found = registered(path, decorator)
    except (SyntaxError, ValueError):
        return None
    return next((entry.info for entry in found if entry.class_name == class_name), None)


def registered(path: Path, decorator: str) -> list[Registered]:
    """The classes at the top level of a source file that carry ``@decorator(...)``.

    Raises:
        OSError: the file cannot be read.
        SyntaxError, ValueError: it is no Python source.
    """
    source = path.read_bytes()
    # Most files name no decorator, and reading is much faster than parsing.
    lines = re.finditer(rb"^@(\w+\.)*" + decorator.encode() + rb"\b", source, re.MULTILINE)
    starts = [line.start() for line in lines]
    if not starts:
        return []
    statements = _statements(source, path, starts[-1])
    scope = _SCOPE | _constants(statements)
    return [
        Registered(statement.name, _evaluated(call, path, scope))
        for statement in statements
        if isinstance(statement, ast.ClassDef)
        for call in decorations(statement, decorator)
    ]


def _statements(source: bytes, path: Path, last: int) -> list[ast.stmt]:
    """What a module holds, at least up to the class after the decorator at ``last``.

    Most of a mechanism comes after its record. Where Python has compiled the file as it stands, the
    rest is known to be sound and is not parsed, which takes two thirds of the time.
    """
    header = re.compile(rb"^class \w+[^:]*:", re.MULTILINE).search(source, last)
    if header is not None and _is_compiled(path):
        try:
            return ast.parse(source[: header.end()] + b" ...").body
        except SyntaxError:  # the colon was another one
            pass
    return ast.parse(source).body


def _constants(statements: list[ast.stmt]) -> dict[str, Any]:
    """Values of the names that a module assigns once, at its top level, to a literal."""
    found: dict[str, Any] = {}
    again: set[str] = set()
    for statement in statements:
        match statement:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                if name in found:
                    again.add(name)
                try:
                    found[name] = ast.literal_eval(value)
                except ValueError:  # a computed value: only the import knows it
                    again.add(name)
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Import():
                pass
            case _:  # `+=`, a branch, a loop: what it assigns is known after it ran only
                again |= {
                    node.id
                    for node in ast.walk(statement)
                    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
                }
    return {name: value for name, value in found.items() if name not in again}


def _is_compiled(path: Path) -> bool:
    """Whether the interpreter's cache holds this version of a file: its time and size, as there."""
    try:
        state = path.stat()
        with open(importlib.util.cache_from_source(str(path)), "rb") as cached:
            head = cached.read(16)
    except (OSError, NotImplementedError):
        return False
    version = (0, int(state.st_mtime) & 0xFFFFFFFF, state.st_size & 0xFFFFFFFF)
    return head == importlib.util.MAGIC_NUMBER + struct.pack("<III", *version)


def decorations(statement: ast.ClassDef, decorator: str) -> Iterator[ast.Call]:
    """The calls of a decorator in front of a class, by its plain name or through a module."""
    for call in statement.decorator_list:
        if not isinstance(call, ast.Call):
            continue
        called = call.func
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        if name == decorator:
            yield call


def class_id(class_name: str) -> str:
    """The kebab-case id of a class that names none: ``my-mean`` for ``MyMean``."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", class_name)
    return words.lower().replace("_", "-")


def _evaluated(call: ast.Call, path: Path, scope: dict[str, Any]) -> Any | None:
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    if len(given) != 1:
        return None
    try:
        return eval(compile(ast.Expression(given[0]), str(path), "eval"), dict(scope))
    except Exception:  # anything the vocabulary cannot express is left to the import
        return None


def _top_level(name: str) -> ModuleSpec | None:
    try:
        return own_spec(name) or importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
