"""A scene and a scanpath as a picture."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from tasks.scanpath.scenes import NOTHING, Scenes

PIXELS, MARGIN = 300, 20

PALETTE = ("#d62728", "#1f77b4", "#2ca02c", "#ff9f1c")

CORNERS = (0, 4, 3, 6)
"""Of the shapes; 0: a disc"""


def draw_scanpath(scenes: Scenes, row: int, path: Tensor) -> NDArray[np.uint8]:
    """(H, W, 3) the objects, a ring around the target, and a numbered (T,) path from the centre."""
    canvas = Image.new("RGB", (PIXELS, PIXELS), "white")
    pen = ImageDraw.Draw(canvas)
    places = (MARGIN + (PIXELS - 2 * MARGIN) * scenes.places[row]).tolist()
    count = int(scenes.present[row].sum())
    for j in range(count):
        radius = 5 + 2.5 * int(scenes.sizes[row, j])
        colour = PALETTE[int(scenes.colours[row, j])]
        pen.polygon(_outline(places[j], radius, CORNERS[int(scenes.shapes[row, j])]), fill=colour)
    x, y = places[int(scenes.target[row])]
    pen.ellipse((x - 15, y - 15, x + 15, y + 15), outline="black", width=2)
    looked = [j for j in path.tolist() if j != NOTHING]
    pen.line([(PIXELS / 2, PIXELS / 2), *(tuple(places[j]) for j in looked)], fill="#555555")
    for j in dict.fromkeys(looked):
        visits = ",".join(str(number) for number, other in enumerate(looked, 1) if other == j)
        pen.text((places[j][0] + 6, places[j][1] - 14), visits, fill="black")
    pen.rectangle((0, 0, PIXELS - 1, PIXELS - 1), outline="#aaaaaa")
    return np.asarray(canvas)


def _outline(place: list[float], radius: float, corners: int) -> list[tuple[float, float]]:
    count = corners or 32
    turns = (torch.arange(count) / count * 2 * math.pi).tolist()
    return [(place[0] + radius * math.sin(a), place[1] - radius * math.cos(a)) for a in turns]
