"""How commands end: what the user got wrong, or the terminal cannot take, as one line."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from typing import Any

import typer

from cab.errors import CabError
from cab.streams import abandon_output
from cab.visible import visible

# Typer carries its own copy of click in newer versions; this is the base of its error classes in
# any of them.
_ClickError: Any = next(
    base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException"
)
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""How writing to a stream fails; unlike a file, it has no name"""


def complain(message: str) -> None:
    """Say on standard error what is wrong, in one line."""
    print(f"cab: {visible(' '.join(message.split()))}", file=sys.stderr)


def exit_code_of(command: Callable[[], object]) -> int:
    """Run a command and say what went wrong.

    Args:
        command: gives its exit code, or anything else for 0.
    """
    try:
        code = _run(command)
        sys.stdout.flush()  # here, where what goes wrong can be said
    except BrokenPipeError:  # as ``| head`` leaves it: whoever read has read enough
        abandon_output()
        return 1
    except OSError as error:
        if error.filename is not None or error.errno not in _NO_ROOM:
            raise
        abandon_output()
        complain(f"cannot write the output: {error.strerror}")
        return 2
    return code


def _run(command: Callable[[], object]) -> int:
    try:
        code = command()
    except CabError as error:
        complain(str(error))
        return 2
    except _ClickError as error:
        message = error.format_message()
        # Without arguments click's "error" is the help text, which is no single line.
        if type(error).__name__.startswith("NoArgsIsHelp"):
            print(message)
        else:
            complain(message)
        return 2
    except (typer.Abort, KeyboardInterrupt):
        return 130
    return code if isinstance(code, int) else 0
