"""Standard output and error that take any text, whatever the terminal's encoding."""

from __future__ import annotations

import codecs
import io
import os
import sys

LEGIBLE = "cab.legible"
"""Name of the error handler: what an encoding lacks is spelt out"""

_SPELT = {
    "±": "+-", "×": "x", "·": "-", "−": "-", "–": "-", "—": "-", "…": "...", "µ": "u", "μ": "u",
    "Δ": "d", "²": "^2", "↑": "^", "↓": "v", "→": "->", "≤": "<=", "≥": ">=", "≈": "~",
    "‘": "'", "’": "'", "“": "'", "”": "'", "█": "#", "━": "-", "╸": "-", "╺": "-", "•": "*",
}  # fmt: skip


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_SPELT.get(c) or _escape(c) for c in lacking), error.end


def _escape(character: str) -> str:
    r"""As JSON has it, ``\u221e``, so that JSON stays JSON."""
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(rf"\u{units[n : n + 2].hex()}" for n in range(0, len(units), 2))


codecs.register_error(LEGIBLE, _spell)


def make_legible() -> None:
    """Let standard output and error spell out what their encoding lacks instead of raising; where
    they are closed, what is written is lost.
    """
    # Such a stream is None, and whoever writes to it without looking fails.
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=LEGIBLE)


def abandon_output() -> None:
    """Lose what standard output still holds, which cannot be written: otherwise the interpreter
    tries again at its end, and complains.
    """
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):  # no stream of the system's
        sys.stdout = _nowhere()


def _nowhere() -> io.TextIOWrapper:
    return open(os.devnull, "w", encoding="utf-8")
