"""Classes by the place of their code: ``path/to/file.py:Class`` and ``package.module:Class``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cab.errors import RegistrationError
from cab.own_code import PACKAGES, load_own_package
from cab.source_info import module_below

_FILE_MODULE = "cab_file_"
_SUITE = frozenset({"cab", *PACKAGES})


class WrongKindError(RegistrationError):
    """A class that is not of the kind that was asked for."""


def import_target(
    target: str,
    noun: str,
    base: str,
    adapt: Callable[[Callable[..., Any], str], type] | None = None,
) -> tuple[str, type]:
    """Import a class by its place.

    A module that only the current folder has is taken as the file that it is, so that its canonical
    target leads there from any other process too.

    Args:
        target: ``path/to/file.py:Class`` or ``package.module:Class``.
        noun: what the class should be, for messages.
        base: ``module:Class`` of the class that it must be derived from.
        adapt: makes such a class of a function and its name; None: a function is refused.

    Returns:
        The canonical target (``module:Class`` or ``/absolute/file.py:Class``) and the class.

    Raises:
        WrongKindError: the class is not derived from the base.
        RegistrationError: it does not import, or there is no such class.
    """
    location, _, class_name = target.rpartition(":")
    if not location or not class_name.isidentifier():
        raise RegistrationError(
            f"{target!r} is neither an id nor path/to/file.py:Class nor package.module:Class"
        )
    path = _file(location) if location.endswith(".py") else None
    here = module_below(Path.cwd(), location.split(".")) if path is None else None
    if here is not None and not _leads_elsewhere(location):
        path = here.resolve()
    try:
        if path is not None:
            module, canonical = _import_file(path), f"{path}:{class_name}"
        else:
            load_own_package(location.split(".")[0])
            module, canonical = importlib.import_module(location), target
    except RegistrationError:
        raise
    except BaseException as error:  # a user's file may raise anything, SystemExit included
        if isinstance(error, KeyboardInterrupt):
            raise
        raise RegistrationError(
            f"{location} does not import: {type(error).__name__}: {_one_line(error)}"
        ) from error
    kind = _base(base)
    cls = getattr(module, class_name, None)
    if cls is None:
        raise RegistrationError(
            f"{location} has no class {class_name}{_suggest(module, kind)}{_hidden(path, here)}"
        )
    if adapt is not None and callable(cls) and not isinstance(cls, type):
        return canonical, adapt(cls, class_name)
    if not (isinstance(cls, type) and issubclass(cls, kind)):
        raise WrongKindError(
            f"{target} is not {article(noun)}: it must be a subclass of {base.replace(':', '.')}"
        )
    return canonical, cls


def _file(location: str) -> Path:
    try:
        path = Path(location).expanduser().resolve()
        path.stat()
    except FileNotFoundError:
        return path
    except (OSError, RuntimeError, ValueError) as error:  # too long, no such home, a zero byte
        told = getattr(error, "strerror", None) or error
        raise RegistrationError(f"{location[:80]} cannot be read: {told}") from None
    return path


def class_target(cls: type) -> str:
    """The canonical target of a class that is there already."""
    origin = source_file(cls)
    place = origin if is_of_a_file(cls) and origin else cls.__module__
    return f"{place}:{cls.__qualname__}"


def is_of_a_file(cls: type | Callable[..., Any]) -> bool:
    """Whether a class, or a function, was loaded by its file's path."""
    return cls.__module__.startswith(_FILE_MODULE)


def source_file(cls: type) -> Path | None:
    """The file that a class's module was loaded from."""
    origin = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return Path(origin) if origin else None


def article(noun: str) -> str:
    """A noun with its article."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _leads_elsewhere(location: str) -> bool:
    """Whether a module is found without the current folder, on a path that workers have as well."""
    top = location.split(".")[0]
    if top in _SUITE:
        return True
    given = {Path(p).resolve() for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p}
    here = Path.cwd()
    path = [p for p in sys.path if p and (Path(p).resolve() != here or here in given)]
    return any(finder.find_spec(top, path) is not None for finder in sys.meta_path)


def _import_file(path: Path) -> Any:
    if not path.is_file():
        raise RegistrationError(f"{path} does not exist")
    # A file that was edited since it was last imported is another module.
    content = f"{path}\0".encode() + path.read_bytes()
    package = _folder_package(path.parent)
    name = f"{package}.{path.stem}_{hashlib.sha256(content).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    for own in PACKAGES:
        # Once imported they cannot be taken for a folder of that name beside the file: in an
        # editable install every folder on the path comes before the suite.
        load_own_package(own)
    for folder in (path.parent, _project(path)):
        # At the end: what lies beside the file is found, and shadows nothing.
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _project(path: Path) -> Path:
    """The folder from which the package that a file belongs to is imported."""
    folder = path.parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder


def _folder_package(folder: Path) -> str:
    """Name of a package made of a folder, so that files in it can import each other relatively."""
    name = f"{_FILE_MODULE}{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    return name


def _base(base: str) -> type:
    module, _, name = base.partition(":")
    return getattr(importlib.import_module(module), name)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or "no message"


def _suggest(module: Any, base: type) -> str:
    names = [
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, base) and value is not base
    ]
    return f"; it has {', '.join(sorted(names))}" if names else ""


def _hidden(taken: Path | None, here: Path | None) -> str:
    """Says so where another module of the same name was taken than that of the current folder."""
    if taken is not None or here is None:
        return ""
    shown = here.relative_to(Path.cwd())
    return f"; another module of that name comes before ./{shown}: name yours as ./{shown}:Class"
