"""Where an object of a running session lies, so that a process of its own can import it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cab.errors import UsageError
from cab.targets import is_of_a_file


def name_of(what: str | type | Callable[..., Any]) -> str:
    """What the command line would take for it: a name as it is; of a class or a function
    ``/path/file.py:Name`` or ``module:Name``.

    Raises:
        UsageError: no other process could import it.
    """
    if isinstance(what, str):
        return what
    name = getattr(what, "__qualname__", "")
    module = sys.modules.get(getattr(what, "__module__", "") or "")
    if not name.isidentifier() or module is None:
        raise UsageError(
            f"{name or what!r} cannot be imported by the process that times it: define it at the "
            "top level of a file or a module"
        )
    if getattr(module, name, None) is not what:
        raise UsageError(f"{module.__name__} has no {name}, or has replaced it since")
    file = getattr(module, "__file__", None)
    if module.__name__ == "__main__":
        if not file:
            raise UsageError(
                f"{name} was defined in an interactive session, where the process that times it "
                "cannot import it; put it into a file, and give cab.bench the name file.py:"
                f"{name}, or import it from there"
            )
        return f"{Path(file).resolve()}:{name}"
    # What lies in a package is installed, or below the current folder; a file may lie anywhere
    # that the path of this process leads to.
    alone = "." not in module.__name__ or is_of_a_file(what)
    return f"{file}:{name}" if file and alone else f"{module.__name__}:{name}"
