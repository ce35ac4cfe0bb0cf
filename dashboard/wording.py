"""Words that several sections share: commands, units, and text that Markdown must not read."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from cab.cli.app import DEFAULT_RESULTS

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:&])")

INTERVAL_OF_SEEDS = "mean ± half the 95 % interval (Student's t over training seeds)"


def plain(text: str) -> str:
    """Text from outside (ids, paths, messages) so that Markdown shows it as it is."""
    return _MARKDOWN.sub(r"\\\1", text)


def run_command(folder: Path, *arguments: str) -> str:
    """A ``cab run`` that adds to this results folder."""
    words = ["cab", "run", *arguments]
    if folder.resolve() != DEFAULT_RESULTS.resolve():
        words.append(f"--out {shlex.quote(str(folder))}")
    return " ".join(words)


def with_unit(name: str, unit: object) -> str:
    """``nll (nat/token)``; a number without a dimension has no unit to name."""
    return f"{name} ({unit})" if isinstance(unit, str) and unit not in ("", "1") else name


def count(number: int, noun: str) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
