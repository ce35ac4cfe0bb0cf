"""A track: what may share a table. Nothing is compared across patterns, scales or devices."""

from __future__ import annotations

from dataclasses import dataclass
from functools import total_ordering

from cab.errors import UsageError
from cab.info import Scale
from cab.patterns import Pattern

DEVICES = ("cpu", "cuda")
"""Kinds of device"""


@total_ordering
@dataclass(frozen=True)
class Setting:
    """A scale on a kind of device: its tracks, one a pattern, are measured under the same budget.

    Settings are in order of scale, from the smallest, then of device.
    """

    scale: str
    device: str

    @property
    def title(self) -> str:
        """``small, cpu``."""
        return f"{self.scale}, {self.device}"

    def track(self, pattern: str) -> Track:
        """The track of a pattern."""
        return Track(str(pattern), self.scale, self.device)

    def __lt__(self, other: Setting) -> bool:
        return self._place < other._place

    @property
    def _place(self) -> tuple[int, str, str]:
        return _index(self.scale, list(Scale)), self.scale, self.device


@total_ordering
@dataclass(frozen=True)
class Track:
    """One pattern, one scale and one kind of device.

    They are plain strings, because a store may hold names that this version does not know; these
    come last in order. Tracks are in order of setting, then of pattern.
    """

    pattern: str
    scale: str
    device: str

    @property
    def setting(self) -> Setting:
        """Scale and device."""
        return Setting(self.scale, self.device)

    @property
    def title(self) -> str:
        """``causal-cross (small, cpu)``."""
        return self.titled(self.pattern)

    def titled(self, words: str) -> str:
        """Words of a heading that names the pattern, with scale and device behind them."""
        return f"{words} ({self.setting.title})"

    @property
    def about(self) -> dict[str, str]:
        """Its fields by name: what all rows of a table of this track share."""
        return {"pattern": self.pattern, "scale": self.scale, "device": self.device}

    def __str__(self) -> str:
        """``causal-cross small cpu``, which `parse` reads."""
        return f"{self.pattern} {self.scale} {self.device}"

    def __lt__(self, other: Track) -> bool:
        return self._place < other._place

    @property
    def _place(self) -> tuple[Setting, int, str]:
        return self.setting, _index(self.pattern, list(Pattern)), self.pattern

    @classmethod
    def parse(cls, words: str) -> Track:
        """The track of ``causal-cross small cpu``; the pattern may be abbreviated.

        Raises:
            UsageError: these are not three words, or one of them is unknown.
        """
        parts = words.split()
        if len(parts) != 3:
            raise UsageError(f"a track is a pattern, a scale and a device, not {words!r}")
        pattern, scale, device = parts
        check_scale(scale)
        check_device(device)
        return cls(Pattern.parse(pattern).value, scale, device)


def check_scale(scale: str) -> None:
    """Raises UsageError for a scale that does not exist."""
    if scale not in list(Scale):
        raise UsageError(f"unknown scale {scale!r}; choose from {', '.join(Scale)}")


def check_device(device: str) -> None:
    """Raises UsageError for a kind of device that does not exist."""
    if device not in DEVICES:
        raise UsageError(f"unknown device {device!r}; choose from {', '.join(DEVICES)}")


def check_setting(scale: str | None, device: str | None) -> None:
    """Raises UsageError for a scale or a kind of device that does not exist; None is any."""
    if scale is not None:
        check_scale(scale)
    if device is not None:
        check_device(device)


def _index(name: str, known: list[str]) -> int:
    return known.index(name) if name in known else len(known)
