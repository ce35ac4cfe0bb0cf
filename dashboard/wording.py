"""Words of tables as running text of the page: commands, units, and what Markdown must not read."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from cab.locations import DEFAULT_RESULTS
from cab.track import Track

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:&])")


def plain(text: str) -> str:
    """Text from outside (ids, paths, messages) so that Markdown shows it as it is."""
    return _MARKDOWN.sub(r"\\\1", text)


def run_command(folder: Path, *arguments: str) -> str:
    """A ``cab run`` that adds to this results folder."""
    words = ["cab", "run", *arguments]
    if folder.resolve() != DEFAULT_RESULTS.resolve():
        words.append(f"--out {shlex.quote(str(folder))}")
    return " ".join(words)


def sentence(words: str) -> str:
    """Words of a note as a sentence of running text: ``Ranks count the hidden entries too.``"""
    return words[:1].upper() + words[1:] + ("" if words.endswith(".") else ".")


def emphasised(note: str, names: Iterable[str]) -> str:
    """A note in Markdown: as a sentence, with an entry or a task that it begins with in bold; as it
    is where it is a list under a name.

    Args:
        note: plain words.
        names: of entries and tasks.
    """
    names = sorted(names, key=len, reverse=True)
    lead = note.partition(": ")[0]
    if lead in names or " " not in lead:
        return plain(note)
    for name in names:
        if note.startswith(f"{name} "):
            return f"**{plain(name)}**{plain(note[len(name) :])}."
    return sentence(plain(note))


def measure_command(folder: Path, track: Track, measure: str = "") -> str:
    """A ``cab run`` that fills a section which has nothing to show."""
    words = ["--attn all", f"--pattern {track.pattern}", f"--scale {track.scale}"]
    return run_command(folder, *words, *([f"--measure {measure}"] if measure else []))
