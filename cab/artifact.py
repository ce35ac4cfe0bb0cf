"""Artifacts: what a trained model makes, kept beside its numbers to be looked at or listened to."""

from __future__ import annotations

import re
from dataclasses import dataclass

MEDIA = {
    "txt": "text",
    "wav": "audio",
    "png": "image",
    "vl.json": "chart (Vega-Lite)",
}
"""File suffixes, and what they hold."""

MOST_BYTES = 256 * 1024
"""Of one artifact: they are samples, not data sets."""


@dataclass(frozen=True)
class Artifact:
    """One file, with a line that says what it shows."""

    name: str
    """Kebab-case; unique in its cell"""
    suffix: str
    """One of `MEDIA`"""
    caption: str
    content: bytes

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.name):
            raise ValueError(f"an artifact's name is kebab-case, not {self.name!r}")
        if self.suffix not in MEDIA:
            raise ValueError(f"an artifact is one of {', '.join(MEDIA)}, not {self.suffix!r}")
        if len(self.content) > MOST_BYTES:
            raise ValueError(f"artifact {self.name} has {len(self.content)} bytes of {MOST_BYTES}")

    @property
    def file(self) -> str:
        """Name of its file."""
        return f"{self.name}.{self.suffix}"
