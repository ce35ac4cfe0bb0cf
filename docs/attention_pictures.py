"""Maps as small SVG files that stand on light and on dark pages alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from attention_maps import Map
from torch import Tensor

from cab.report.svg import COLOURS, GREY, Drawing

POSITIVE, NEGATIVE = COLOURS[0], COLOURS[1]
_SIDE = 132.0
"""The longer one of a panel"""
_GAP, _LEFT, _TOP = 22.0, 18.0, 34.0
_DIGITS = 9
"""Of a map, before it is drawn: what rounding leaves does not decide a shade"""
_SHADES = ((0.87, 1.0), (0.66, 0.78), (0.47, 0.58), (0.31, 0.41), (0.17, 0.27), (0.0, 0.15))
"""Opacity by the root of a value's share in the largest: from which on, and the opacity"""
_SEEN = 1e-7


def picture(title: str, maps: Sequence[Map]) -> str:
    """A panel for each map: rows are queries, columns are keys, shades are sizes."""
    width = _LEFT + len(maps) * (_SIDE + _GAP)
    height = _TOP + max(_height(one.values) for one in maps) + 8
    drawing = Drawing(width, height, title)
    for number, one in enumerate(maps):
        x = _LEFT + number * (_SIDE + _GAP)
        _panel(drawing, x, one)
    return drawing.svg() + "\n"


def _height(values: Tensor) -> float:
    return _SIDE * values.shape[0] / max(values.shape)


def _panel(drawing: Drawing, x: float, one: Map) -> None:
    values = one.values.mul(10**_DIGITS).round().div(10**_DIGITS)
    rows, columns = values.shape
    height = _height(values)
    drawing.text(x, 14, one.pattern.value, size=11, colour=GREY, bold=True)
    drawing.text(x, _TOP - 5, "keys", size=9, colour=GREY)
    drawing.parts.append(
        f'<text transform="translate({x - 5:.1f} {_TOP + height:.1f}) rotate(-90)" '
        f'font-size="9" fill="{GREY}">queries</text>'
    )
    size = _SIDE / max(rows, columns)
    drawing.parts.append(
        f'<g transform="translate({x:.1f} {_TOP:.1f}) scale({size:.4f})" '
        'shape-rendering="crispEdges" fill="none">'
    )
    runs = _runs(values)
    for (colour, opacity), path in sorted(runs.items(), key=lambda item: item[0][::-1]):
        drawing.parts.append(
            f'<path stroke="{colour}" stroke-opacity="{opacity:g}" d="{"".join(path)}"/>'
        )
    drawing.parts.append(
        f'<rect width="{columns}" height="{rows}" stroke="{GREY}" '
        f'stroke-width="{0.8 / size:.2f}"/></g>'
    )


def _runs(values: Tensor) -> dict[tuple[str, float], list[str]]:
    """Horizontal strokes of cells that look alike, by colour and opacity."""
    largest = values.abs().max().clamp(min=1e-12)
    shares = values.abs().div(largest).sqrt()
    strokes: dict[tuple[str, float], list[str]] = defaultdict(list)
    for row in range(values.shape[0]):
        looks = [
            _look(value, share)
            for value, share in zip(values[row].tolist(), shares[row].tolist(), strict=True)
        ]
        start = 0
        for end in range(1, len(looks) + 1):
            if end == len(looks) or looks[end] != looks[start]:
                look = looks[start]
                if look is not None:
                    strokes[look].append(f"M{start} {row}.5h{end - start}")
                start = end
    return strokes


def _look(value: float, share: float) -> tuple[str, float] | None:
    """Colour and opacity of a cell; None where a value has no part in the output."""
    if abs(value) < _SEEN:
        return None
    opacity = next(shade for least, shade in _SHADES if share >= least)
    return (POSITIVE if value > 0 else NEGATIVE), opacity
