"""Charts over axes that the caller names: heat maps and curves (Vega-Lite)."""

from __future__ import annotations

from collections.abc import Mapping

import altair as alt
import pandas as pd

from cab import Artifact

_CELL = 44
"""Width of a heat map's cell, in pixels; it is three quarters as high"""
_WIDTH, _HEIGHT = 260, 140

Level = int | float | str
"""Where a cell lies on an axis"""


def heat(
    name: str,
    caption: str,
    table: Mapping[Level, Mapping[Level, float]],
    *,
    x: str,
    y: str,
    value: str = "accuracy",
) -> Artifact:
    """A heat map of numbers between 0 and 1, each written into its cell.

    Args:
        name: of the artifact. caption: likewise.
        table: by row (the first on top), by column: the number.
        x: title of the columns. y: of the rows. value: what the numbers are.
    """
    cells = [
        {"row": str(row), "column": str(column), "value": round(number, 4)}
        for row, columns in table.items()
        for column, number in columns.items()
    ]
    columns = max((len(columns) for columns in table.values()), default=0)
    base = alt.Chart(
        pd.DataFrame(cells), width=_CELL * columns, height=3 * _CELL // 4 * len(table)
    ).encode(
        x=alt.X("column:O", title=x, sort=None, axis=alt.Axis(labelAngle=0)),
        y=alt.Y("row:O", title=y, sort=None),
    )
    rectangles = base.mark_rect().encode(
        color=alt.Color(
            "value:Q", title=value, scale=alt.Scale(domain=[0, 1], scheme="yellowgreenblue")
        )
    )
    numbers = base.mark_text(fontSize=11).encode(
        text=alt.Text("value:Q", format=".2f"),
        color=alt.condition("datum.value > 0.5", alt.value("white"), alt.value("black")),
    )
    return _artifact(name, caption, rectangles + numbers)


def curves(
    name: str,
    caption: str,
    series: Mapping[str, Mapping[float, float]],
    *,
    x: str,
    y: str,
    doubling: bool = False,
) -> Artifact:
    """Curves through measured points.

    Args:
        name: of the artifact. caption: likewise.
        series: by curve: the value at each x.
        x: title of the horizontal axis. y: of the vertical one, which begins at 0.
        doubling: one step to the right doubles x.
    """
    points = [
        {"curve": curve, "x": at, "y": round(number, 5)}
        for curve, values in series.items()
        for at, number in values.items()
    ]
    if doubling:
        levels = sorted({at for values in series.values() for at in values})
        axis = alt.Axis(values=levels, format="d")
        scale = alt.Scale(type="log", base=2, nice=False)
    else:
        axis, scale = alt.Axis(), alt.Scale(zero=False)
    chart = (
        alt.Chart(pd.DataFrame(points), width=_WIDTH, height=_HEIGHT)
        .mark_line(point=True)
        .encode(
            x=alt.X("x:Q", title=x, scale=scale, axis=axis),
            y=alt.Y("y:Q", title=y, scale=alt.Scale(zero=True)),
            color=alt.Color("curve:N", title=None, sort=None, legend=alt.Legend(orient="bottom")),
        )
    )
    return _artifact(name, caption, chart)


def _artifact(name: str, caption: str, chart: alt.TopLevelMixin) -> Artifact:
    return Artifact(name, "vl.json", caption, chart.to_json(indent=None).encode())
