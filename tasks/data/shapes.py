"""Point clouds of things, in three splits.

shapes = load_shapes()
shapes.train.points  # (M, P, 3)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyarrow as pa
import torch
from torch import Tensor

from tasks.data.embedded import SPLITS
from tasks.data.embedded import dataset as embedded_dataset

GRID = 4096
"""Stored coordinates are whole numbers of 1 / GRID of the longest side of a shape."""


@dataclass(frozen=True)
class ShapeSet:
    """M shapes of P points each."""

    ids: tuple[str, ...]
    names: tuple[str, ...]
    categories: tuple[str, ...]
    """where a catalogue lists the shape, such as Living room"""
    kinds: tuple[str, ...]
    """a coarse class, such as chair"""
    points: Tensor
    """(M, P, 3) float32 in [-0.5, 0.5]: x, y (up), z; a leading part is spread over the shape"""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class ShapeCorpus:
    """Three splits, with shapes of nearly the same geometry in one of them."""

    train: ShapeSet
    validation: ShapeSet
    test: ShapeSet


def load_shapes(dataset: str = "sweethome3d-furniture") -> ShapeCorpus:
    """The embedded shapes of that name.

    Args:
        dataset: an embedded data set with a shape per row: id, name, category, kind, points.

    Raises:
        DataError: data missing or altered.
    """
    embedded = embedded_dataset(dataset)
    return ShapeCorpus(*(_shapes(embedded.select(split)) for split in SPLITS))


def _shapes(table: pa.Table) -> ShapeSet:
    ids, names, categories, kinds = (
        tuple(table[column].to_pylist()) for column in ("id", "name", "category", "kind")
    )
    values = table["points"].combine_chunks().values.to_numpy(zero_copy_only=False)
    # torch.tensor copies: torch does not like to share memory that is read-only, as Arrow's is.
    points = torch.tensor(values.reshape(table.num_rows, 3, -1)).transpose(1, 2) / GRID
    return ShapeSet(ids, names, categories, kinds, points[:, _spread(points.shape[1])])


def _spread(count: int) -> Tensor:
    """(count,) the numbers below ``count`` in steps of the golden ratio, wrapped around.

    Stored points lie along a curve, neighbours side by side; so every leading part of the
    result is spread evenly over the curve, and thus over the shape.
    """
    step = round(count * (math.sqrt(5) - 1) / 2)
    while math.gcd(step, count) != 1:
        step += 1
    return torch.arange(count) * step % count
