"""Pictures of point clouds, seen from a little above."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_TURN, _TILT = math.radians(35), math.radians(25)
_RADIUS = 1.6
"""Of a dot, in pixels"""
_FADE = 0.65
"""How far the farthest point's colour goes towards white"""

Colour = tuple[int, int, int]


def draw_cloud(points: NDArray[np.floating], colour: Colour, size: int) -> NDArray[np.uint8]:
    """(size, size, 3) picture of (N, 3) points with y up, in the cube of side 1 about the origin.

    Nearer points are drawn over farther ones and in a stronger colour; points
    far outside of the cube fall off the picture.
    """
    x, y, z = points.astype(np.float64).T
    across = x * math.cos(_TURN) - z * math.sin(_TURN)
    towards = x * math.sin(_TURN) + z * math.cos(_TURN)
    up = y * math.cos(_TILT) - towards * math.sin(_TILT)
    near = y * math.sin(_TILT) + towards * math.cos(_TILT)
    reach = math.sqrt(3) / 2
    shade = _FADE * np.clip((reach - near) / (2 * reach), 0, 1)[:, None]
    colours = np.rint((1 - shade) * np.array(colour) + shade * 255).astype(np.uint8)
    # A cloud in a cube rarely needs the corners of its sphere: they may touch the frame.
    scale = size / 1.3
    column, row = size / 2 + scale * across, size / 2 - scale * up
    order = np.argsort(near, kind="stable")
    extent = math.ceil(_RADIUS)
    steps = np.mgrid[-extent : extent + 1, -extent : extent + 1].reshape(2, -1)
    rows = np.rint(row[order]).astype(int)[:, None] + steps[0]
    columns = np.rint(column[order]).astype(int)[:, None] + steps[1]
    dot = np.hypot(rows - row[order, None], columns - column[order, None]) <= _RADIUS
    dot &= (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    picture = np.full((size, size, 3), 255, dtype=np.uint8)
    # Of several colours for a pixel the last stays, which is that of the nearest point.
    picture[rows[dot], columns[dot]] = colours[order][np.nonzero(dot)[0]]
    return picture
