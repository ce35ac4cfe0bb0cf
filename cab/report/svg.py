"""Drawings as inline SVG: axes, marks and words, in the colours of the page around them."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

COLOURS = (
    "#3B82C4", "#E07B39", "#2FA37C", "#C2558F", "#8A6FD1",
    "#B5962B", "#3AA7B8", "#D15B5B", "#7A9A3A", "#A0714F",
)  # fmt: skip
"""Of middle lightness: they stand out from a light and from a dark page alike"""
GREY = "#8A8F98"


@dataclass(frozen=True)
class Axis:
    """From values to places."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    binary: bool = False
    """Whether round values of a logarithmic axis are powers of two, as for bytes"""

    def place(self, value: float) -> float:
        """Where a value lies; what is beyond an end lies at that end."""
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(max(value, 1e-300))
        share = (at - low) / (high - low) if high > low else 0.5
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values between the ends."""
        if not self.log:
            return _round_values(self.low, self.high)
        if self.binary:
            low, high = math.ceil(math.log2(self.low)), math.floor(math.log2(self.high))
            return [2.0**e for e in range(low, high + 1, max(1, (high - low) // 5))]
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        steps = (1, 2, 5) if last - first <= 3 else (1,)
        values = [s * 10.0**e for e in range(first, last + 1) for s in steps]
        return [v for v in values if self.low <= v <= self.high]


def _round_values(low: float, high: float, most: int = 7) -> list[float]:
    if not high > low:
        return [low]
    raw = (high - low) / most
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(s * size for s in (1, 2, 5, 10) if s * size >= raw)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [n * step for n in range(first, last + 1)]


@dataclass
class Drawing:
    """Marks on a canvas of some size; words and rules take the page's text colour."""

    width: float
    height: float
    title: str
    parts: list[str] = field(default_factory=list)

    def line(
        self,
        x1: float,
        y1: float,
        x2: float,
        y2: float,
        colour: str = "currentColor",
        width: float = 1.0,
        dash: str = "",
        opacity: float = 1.0,
        tip: str = "",
    ) -> None:
        """A straight line; ``tip`` shows when the pointer rests on it."""
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
            f'stroke-width="{width:g}" stroke-opacity="{opacity:g}"{dashed}>{_tip(tip)}</line>'
        )

    def path(self, points: Sequence[tuple[float, float]], colour: str, width: float = 2.0) -> None:
        """A line through points."""
        words = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(
            f'<polyline points="{words}" fill="none" stroke="{colour}" stroke-width="{width:g}"/>'
        )

    def area(self, points: Sequence[tuple[float, float]], colour: str) -> None:
        """A pale surface."""
        words = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polygon points="{words}" fill="{colour}" fill-opacity="0.15"/>')

    def dot(
        self, x: float, y: float, colour: str, radius: float = 4.5, hollow: bool = False,
        tip: str = "",
    ) -> None:  # fmt: skip
        """A filled or a hollow point."""
        fill = "none" if hollow else colour
        self.parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{fill}" stroke="{colour}" '
            f'stroke-width="1.5">{_tip(tip)}</circle>'
        )

    def box(
        self, x: float, y: float, width: float, height: float, colour: str, opacity: float,
        tip: str = "",
    ) -> None:  # fmt: skip
        """A filled rectangle."""
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
            f'fill="{colour}" fill-opacity="{opacity:.2f}">{_tip(tip)}</rect>'
        )

    def text(
        self, x: float, y: float, words: str, anchor: str = "start", size: float = 12.0,
        colour: str = "currentColor", bold: bool = False,
    ) -> None:  # fmt: skip
        """Words; ``anchor`` is start, middle or end."""
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size:g}" '
            f'fill="{colour}"{weight}>{html.escape(words)}</text>'
        )

    def svg(self) -> str:
        """The element, to stand in a page."""
        return (
            f'<svg viewBox="0 0 {self.width:.0f} {self.height:.0f}" role="img" font-family="'
            "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif\" "
            f'style="max-width:{self.width:.0f}px" xmlns="http://www.w3.org/2000/svg">'
            f"<title>{html.escape(self.title)}</title>" + "".join(self.parts) + "</svg>"
        )


def _tip(words: str) -> str:
    return f"<title>{html.escape(words)}</title>" if words else ""


def spread(wanted: Sequence[float], least: float, low: float, high: float) -> list[float]:
    """Places near the wanted ones that keep a least distance, for labels beside points.

    Labels that would overlap move apart alike, as far as the ends allow.
    """
    order = sorted(range(len(wanted)), key=lambda n: wanted[n])
    placed = [wanted[n] for n in order]
    for _ in range(200):
        moved = False
        for n in range(len(placed) - 1):
            gap = placed[n + 1] - placed[n]
            if gap < least - 1e-6:
                push = (least - gap) / 2
                placed[n], placed[n + 1], moved = placed[n] - push, placed[n + 1] + push, True
        placed = [min(max(p, low), high) for p in placed]
        if not moved:
            break
    found = [0.0] * len(wanted)
    for n, place in zip(order, placed, strict=True):
        found[n] = place
    return found
