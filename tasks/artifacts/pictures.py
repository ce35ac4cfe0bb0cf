"""Artifacts from arrays: charts, images, sounds and texts, small enough to keep with every run."""

from __future__ import annotations

import io
import wave
from collections.abc import Mapping, Sequence

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from cab import Artifact

_WIDTH, _HEIGHT = 240, 110
"""Of a panel, in pixels: three charts stand side by side on a page."""


def text(name: str, caption: str, content: str) -> Artifact:
    """Plain text."""
    return Artifact(name, "txt", caption, content.encode())


def lines(
    name: str,
    caption: str,
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    x: str,
    y: str,
    start: Mapping[str, int] | None = None,
) -> Artifact:
    """Curves, one panel below the other.

    Args:
        name: of the artifact. caption: likewise.
        panels: by panel, by curve: its values at 0, 1, 2, ...
        x: title of the horizontal axis. y: of the vertical one.
        start: by curve, where it begins, if not at 0.
    """
    places = start or {}
    rows = [
        {"panel": panel, "curve": curve, "x": places.get(curve, 0) + i, "y": float(f"{value:.5g}")}
        for panel, curves in panels.items()
        for curve, values in curves.items()
        for i, value in enumerate(values)
    ]
    chart = (
        alt.Chart(pd.DataFrame(rows), width=_WIDTH, height=_HEIGHT)
        .mark_line()
        .encode(
            x=alt.X("x:Q", title=x),
            y=alt.Y("y:Q", title=y, scale=alt.Scale(zero=False)),
            color=alt.Color("curve:N", title=None, sort=None, legend=alt.Legend(orient="bottom")),
        )
    )
    if len(panels) > 1:
        chart = chart.facet(
            row=alt.Row("panel:N", title=None, sort=None, header=alt.Header(orient="top"))
        ).resolve_scale(y="independent")
    return Artifact(name, "vl.json", caption, chart.to_json(indent=None).encode())


def image(name: str, caption: str, pixels: NDArray[np.uint8], zoom: int = 1) -> Artifact:
    """(H, W) grey or (H, W, 3) RGB as PNG, each pixel ``zoom`` wide."""
    picture = Image.fromarray(pixels)
    if zoom > 1:
        size = (picture.width * zoom, picture.height * zoom)
        picture = picture.resize(size, Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return Artifact(name, "png", caption, buffer.getvalue())


def heat_map(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """(H, W) grey of a matrix, its largest value white; the first row at the bottom."""
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / (high - low if high > low else 1.0)
    return np.flipud(np.rint(255 * scaled)).astype(np.uint8)


def grid(tiles: Sequence[Sequence[NDArray[np.uint8]]], gap: int = 2) -> NDArray[np.uint8]:
    """Rows of equally large pictures as one, on white."""
    first = tiles[0][0]
    high, wide = first.shape[0] + gap, first.shape[1] + gap
    shape = (len(tiles) * high - gap, max(map(len, tiles)) * wide - gap, *first.shape[2:])
    whole = np.full(shape, 255, dtype=np.uint8)
    for i, row in enumerate(tiles):
        for j, tile in enumerate(row):
            whole[i * high : i * high + tile.shape[0], j * wide : j * wide + tile.shape[1]] = tile
    return whole


def sound(name: str, caption: str, samples: NDArray[np.floating], rate: int) -> Artifact:
    """Mono 16-bit WAV of samples in -1..1 at ``rate`` Hz."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.rint(32767 * np.clip(samples, -1, 1)).astype("<i2").tobytes())
    return Artifact(name, "wav", caption, buffer.getvalue())
