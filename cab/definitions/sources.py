"""Which file a module lies in, and whether its code is followed; nothing is imported."""

from __future__ import annotations

import sysconfig
from functools import lru_cache
from pathlib import Path

from cab.source_info import module_path

SUITE = frozenset({"cab", "attentions", "tasks", "runners"})
"""Top-level packages of the suite whose code decides numbers"""

_INSTALLED = frozenset({"site-packages", "dist-packages"})


@lru_cache(maxsize=4096)
def find_module(dotted: str, own: frozenset[str], folder: Path | None) -> Path | None:
    """The file of a module whose code is followed, None for any other module.

    Followed are the suite itself, the package that is asked about (``own``, top-level names), and
    whatever else lies on the path as source rather than as an installed package: a user's helper
    modules. Code of installed packages stands in the rows as a version.

    Args:
        dotted: full name of the module.
        own: top-level packages that are followed wherever they lie.
        folder: where modules are looked for that are not on the path; None: nowhere.
    """
    top = dotted.split(".")[0]
    path = module_path(dotted)
    if path is not None:
        return path if top in SUITE or top in own or _is_source(path) else None
    return beside(folder, dotted) if folder is not None else None


def beside(folder: Path, dotted: str) -> Path | None:
    """The file of a module by its path below a folder."""
    stem = folder.joinpath(*dotted.split(".")) if dotted else folder
    for candidate in (stem.with_suffix(".py"), stem / "__init__.py"):
        if candidate.is_file():
            return candidate.resolve()
    return None


def neighbours(path: Path, package: bool) -> list[Path]:
    """Every source file of the package or folder that a file lies in."""
    if not package:
        return sorted(path.parent.glob("*.py"))
    root = path.parent
    while (root.parent / "__init__.py").is_file():
        root = root.parent
    return sorted(root.rglob("*.py"))


def _is_source(path: Path) -> bool:
    if _INSTALLED & set(path.parts):
        return False
    return not any(path.is_relative_to(folder) for folder in _standard_library())


@lru_cache(maxsize=1)
def _standard_library() -> tuple[Path, ...]:
    return tuple({Path(sysconfig.get_paths()[name]) for name in ("stdlib", "platstdlib")})
