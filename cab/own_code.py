"""Where the suite's own packages lie, and whether something else is imported in their place.

`tasks`, `runners` and `results` are common names for folders. A folder of that name that comes
first on the import path would be measured under this suite's name, or break it in odd ways.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from cab.errors import RegistrationError

ROOT = Path(__file__).resolve().parent.parent
"""The folder that holds the suite's packages"""

PACKAGES = ("attentions", "tasks", "runners", "dashboard")
"""Those that are imported; `results` holds files alone"""


def require_own_packages() -> None:
    """Make sure that the names of the suite's packages lead to the suite.

    Raises:
        RegistrationError: one leads elsewhere; names the folder that shadows it.
    """
    for name in PACKAGES:
        found = _location(name)
        if found is not None and found.parent != ROOT:
            raise RegistrationError(
                f"{_shadow(found, name)}: {found.parent} comes first on Python's import path "
                "(PYTHONPATH, or the folder of the script); take it off, or rename yours"
            )


def own_spec(name: str) -> ModuleSpec | None:
    """Where a package of the suite lies; None for any other name.

    The import path has no say in it: the folder of a script is first on the path, and may hold
    `tasks` or `runners` of its own.
    """
    if name not in PACKAGES:
        return None
    return PathFinder.find_spec(name, [str(ROOT)])


def load_own_package(name: str) -> None:
    """Import a package of the suite, if the name is one, from where the suite lies. Its modules can
    be imported from then on, whatever else has that name.

    Raises:
        RegistrationError: something else of that name was imported before; says what.
    """
    spec = own_spec(name)
    if spec is None:
        return
    if name in sys.modules:
        found = _location(name)
        if found is not None and found.parent != ROOT:
            raise RegistrationError(
                f"{_shadow(found, name)}: it was imported before; rename it, or use cab in a "
                "program that does not import it"
            )
        return
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    if spec.loader is not None:
        spec.loader.exec_module(package)


def safe_python(*arguments: str) -> list[str]:
    """A command line for a Python process that does not import from the current folder."""
    return [sys.executable, "-P", *arguments]


def safe_environment(**more: str) -> dict[str, str]:
    """Environment for such a process: it finds the same suite as this one."""
    environment = dict(os.environ) | {"PYTHONSAFEPATH": "1"} | more
    if not {"site-packages", "dist-packages"} & set(ROOT.parts):
        known = environment.get("PYTHONPATH", "")
        paths = [str(ROOT), *(p for p in known.split(os.pathsep) if p and p != str(ROOT))]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment


def _shadow(found: Path, name: str) -> str:
    return f"{found} shadows the package {name!r} of this suite (in {ROOT})"


def _location(name: str) -> Path | None:
    """The folder or file that a package would be imported from; None where there is none."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.origin is None:  # a folder without __init__.py
        places = list(spec.submodule_search_locations or ())
        return Path(places[0]).resolve() if places else None
    origin = Path(spec.origin).resolve()
    return origin.parent if origin.name == "__init__.py" else origin
