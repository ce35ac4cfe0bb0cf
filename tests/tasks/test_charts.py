"""Heat maps and curves: valid Vega-Lite that draws."""

from __future__ import annotations

import json

import vl_convert

from tasks.artifacts.charts import curves, heat


def test_a_heat_map_keeps_the_order_of_rows_and_columns() -> None:
    table = {"0%": {64: 1.0, 1024: 0.25}, "100%": {64: 0.5, 1024: 0.0}}
    made = heat("length-and-depth", "What it shows.", table, x="tokens", y="depth")
    specification = json.loads(made.content)
    cells = next(iter(specification["datasets"].values()))
    assert cells[1] == {"row": "0%", "column": "1024", "value": 0.25}
    drawn = vl_convert.vegalite_to_svg(made.content.decode())
    at = {word: drawn.index(f">{word}<") for word in ("64", "1024", "0%", "100%")}
    assert at["64"] < at["1024"]
    assert at["0%"] < at["100%"]
    assert ">0.25<" in drawn


def test_curves_draw_on_a_doubling_axis() -> None:
    series = {"model": {4: 1.0, 16: 0.5, 64: 0.1}, "guess": {4: 0.25, 16: 0.0625, 64: 0.0156}}
    made = curves("accuracy-by-pairs", "What it shows.", series, x="pairs", y="a", doubling=True)
    drawn = vl_convert.vegalite_to_svg(made.content.decode())
    assert all(f">{word}<" in drawn for word in ("4", "16", "64", "pairs", "guess"))


def test_curves_draw_on_an_even_axis() -> None:
    made = curves("accuracy-by-step", "What it shows.", {"a": {1: 1.0, 2: 0.5}}, x="step", y="a")
    assert ">step<" in vl_convert.vegalite_to_svg(made.content.decode())
