"""How entries look in every chart, and axes with ticks that a reader can name."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import altair as alt

from cab.controls import BASELINE
from cab.report.svg import COLOURS, GREY
from cab.scoring.boards import controls

ACCENT = COLOURS[0]
_SHAPES = ("circle", "triangle-up", "diamond", "triangle-down")
_CONTROL_SHAPES = ("square", "cross", "triangle-right", "triangle-left")
_SOLID = [1, 0]
_CONTROL_DASHES = ([6, 3], [2, 2], [8, 3, 2, 3])

FRAME = 140
"""Pixels of a chart's height that its title with two lines below it, axis and legend take from the
drawing."""


@dataclass(frozen=True)
class Look:
    """How one entry is drawn."""

    colour: str
    shape: str
    dash: list[int]


class EntryLooks:
    """A look for every entry of a track, whatever filter is set; controls are grey.

    Args:
        entries: entry name and attention id.
    """

    def __init__(self, entries: Iterable[tuple[str, str]]) -> None:
        fixed = controls()
        pairs = sorted(set(entries), key=lambda pair: (pair[1] != BASELINE, pair))
        others = [name for name, attention in pairs if attention not in fixed]
        looks = {
            name: Look(COLOURS[n % len(COLOURS)], _SHAPES[n // len(COLOURS) % len(_SHAPES)], _SOLID)
            for n, name in enumerate(others)
        }
        references = [name for name, attention in pairs if attention in fixed]
        dashes = (_SOLID, *_CONTROL_DASHES)
        for n, name in enumerate(references):
            shape = _CONTROL_SHAPES[n % len(_CONTROL_SHAPES)]
            looks[name] = Look(GREY, shape, dashes[n % len(dashes)])
        self._looks = looks

    def order(self, entries: Iterable[str]) -> list[str]:
        """Some of the entries in the order of the legend, controls last."""
        wanted = set(entries)
        return [name for name in self._looks if name in wanted]

    def colour(self, shown: list[str]) -> alt.Color:
        """Colour by entry."""
        values = [self._looks[name].colour for name in shown]
        return alt.Color("entry:N", scale=alt.Scale(domain=shown, range=values), legend=LEGEND)

    def shape(self, shown: list[str]) -> alt.Shape:
        """Shape of points by entry."""
        values = [self._looks[name].shape for name in shown]
        return alt.Shape("entry:N", scale=alt.Scale(domain=shown, range=values), legend=LEGEND)

    def dash(self, shown: list[str]) -> alt.StrokeDash:
        """Dashes of lines by entry."""
        values = [self._looks[name].dash for name in shown]
        return alt.StrokeDash("entry:N", scale=alt.Scale(domain=shown, range=values), legend=LEGEND)


LEGEND = alt.Legend(
    orient="bottom", columns=4, labelLimit=220, symbolOpacity=1, symbolSize=70, title=None
)


def highlight() -> alt.Parameter:
    """A click on the legend brings one entry to the front."""
    return alt.selection_point(fields=["entry"], bind="legend")


def entry_axis(names: list[str]) -> alt.Y:
    """Entries from top to bottom in the given order."""
    axis = alt.Axis(labelLimit=240, title=None, grid=False, labelFlush=False)
    return alt.Y("entry:N", sort=names, axis=axis, scale=alt.Scale(domain=names))


def length_axis(lengths: Iterable[int]) -> alt.X:
    """Sequence length, logarithmic to base 2, with a tick at every measured length."""
    values = sorted(set(lengths))
    axis = alt.Axis(values=values, format="d", title="Length (tokens)", labelFlush=False)
    return alt.X("length:Q", scale=alt.Scale(type="log", base=2, nice=False), axis=axis)


def log_axis(title: str, values: Iterable[float], unit: str) -> alt.Y:
    """A logarithmic axis of seconds (``s``), bytes (``B``) or ratios (``x``)."""
    finite = [v for v in values if math.isfinite(v) and v > 0]
    low, high = min(finite), max(finite)
    ticks = _powers(low, high, 2.0) if unit == "B" else _decimal_ticks(low, high)
    domain = [min(low, ticks[0]), max(high, ticks[-1])]
    axis = alt.Axis(values=ticks, labelExpr=_LABELS[unit], title=title, labelOverlap=True)
    scale = alt.Scale(type="log", domain=domain, nice=False)
    return alt.Y("value:Q", scale=scale, axis=axis)


_LABELS = {
    "s": "datum.value < 1e-3 ? format(datum.value * 1e6, '~g') + ' µs' : "
    "datum.value < 1 ? format(datum.value * 1e3, '~g') + ' ms' : format(datum.value, '~g') + ' s'",
    "B": "datum.value < 1024 ? format(datum.value, '~g') + ' B' : "
    "datum.value < 1048576 ? format(datum.value / 1024, '~g') + ' KiB' : "
    "datum.value < 1073741824 ? format(datum.value / 1048576, '~g') + ' MiB' : "
    "format(datum.value / 1073741824, '~g') + ' GiB'",
    "x": "format(datum.value, '~g') + 'x'",
}


def _decimal_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, ... around the range, or powers of ten alone where it is wide."""
    steps = (1, 2, 5) if math.log10(high / low) < 2.5 else (1,)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    candidates = [step * 10.0**e for e in range(first, last + 1) for step in steps]
    below = [c for c in candidates if c <= low]
    above = [c for c in candidates if c >= high]
    return [c for c in candidates if below[-1] <= c <= above[0]]


def _powers(low: float, high: float, base: float) -> list[float]:
    first = math.floor(math.log(low, base))
    last = math.ceil(math.log(high, base))
    step = max(1, math.ceil((last - first) / 8))
    return [base**e for e in range(first, last + step, step)]
