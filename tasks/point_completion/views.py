"""Partial views of the embedded shapes: the half that faces a direction is what was seen.

Shapes stand on the ground (y is up) and are turned about the vertical at random, since a catalogue
has most of its things look the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from cab import Batch, seeds
from cab.task_contract import Split
from tasks.data.embedded import dataset as embedded_dataset
from tasks.data.shapes import load_shapes
from tasks.point_completion.pairs import Amounts, some, spread

_TILT = 0.5
"""Directions are rather horizontal: things are rarely seen from straight above or below"""


class EmbeddedPairs:
    """Views of the shapes of an embedded data set; see `tasks.point_completion.pairs.Pairs`."""

    def __init__(self, dataset: str, amounts: Amounts) -> None:
        self.shapes = load_shapes(dataset)
        self.amounts = amounts
        self._data_hash = embedded_dataset(dataset).data_hash

    @property
    def data_hash(self) -> str:
        """Of the embedded file."""
        return self._data_hash

    @property
    def training_shapes(self) -> int:
        """Shapes to train on."""
        return len(self.shapes.train)

    def training_batch(self, size: int, generator: torch.Generator) -> Batch:
        """Fresh views of random shapes."""
        rows = some(self.training_shapes, size, generator)
        points = self.shapes.train.points[rows]
        return draw_views(points, self.amounts.seen, self.amounts.training_truth, generator)

    def evaluation_batches(self, split: Split, pairs: int, size: int) -> Iterator[Batch]:
        """Fixed views; several of a shape where there are fewer shapes than pairs."""
        shapes = self.shapes.validation if split == "validation" else self.shapes.test
        generator = seeds.evaluation(0, split)
        rows = spread(len(shapes), pairs)
        for begin in range(0, len(rows), size):
            points = shapes.points[rows[begin : begin + size]]
            yield draw_views(points, self.amounts.seen, self.amounts.truth, generator)


def draw_views(shapes: Tensor, seen: int, truth: int, generator: torch.Generator) -> Batch:
    """One partial view of each shape.

    Input and truth are different samples of the surface: no point is in both.

    Args:
        shapes: (B, P, 3), with at least ``2 * seen + truth`` points each.
        seen: points of the input; they lie in the half of the surface that faces the direction.
        truth: points to be predicted, from all of the surface.
        generator: gives points, turns and directions.

    Returns:
        ``partial`` (B, seen, 3) and ``complete`` (B, truth, 3)

    Raises:
        ValueError: there are fewer points than that.
    """
    batch, points = shapes.shape[:2]
    if points < 2 * seen + truth:
        raise ValueError(f"{seen} seen and {truth} other points of shapes of {points} points")
    order = torch.rand(batch, points, generator=generator).argsort(1)[:, : 2 * seen + truth]
    cloud = shapes.gather(1, order[..., None].expand(-1, -1, 3))
    cloud = cloud @ turns(2 * math.pi * torch.rand(batch, generator=generator))
    candidates, complete = cloud.split([2 * seen, truth], dim=1)
    direction = torch.randn(batch, 3, generator=generator) * torch.tensor([1.0, _TILT, 1.0])
    towards = (candidates @ F.normalize(direction, dim=1)[..., None])[..., 0]
    # In the order of the candidates, which is random, not in that of the distance.
    half = towards.topk(seen, dim=1).indices.sort(dim=1).values
    partial = candidates.gather(1, half[..., None].expand(-1, -1, 3))
    return {"partial": partial, "complete": complete.contiguous()}


def turns(angles: Tensor) -> Tensor:
    """(B, 3, 3) rotations about the vertical axis, to be multiplied from the right."""
    cosine, sine, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    rows = [cosine, zero, -sine, zero, zero + 1, zero, sine, zero, cosine]
    return torch.stack(rows, dim=1).unflatten(1, (3, 3))
