"""The pictures of each split, of one side, 8-bit RGB."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tasks.data.embedded import dataset
from tasks.data.images import photographs
from tasks.super_resolution.resampling import resized

EMBEDDED = "photographs"

ALL = 1 << 31


@dataclass(frozen=True)
class Sizes:
    """Of the pictures at one scale."""

    low: int
    """Side of what a model is given, in pixels, before it is enlarged"""
    high: int
    """Side of what it is asked for"""
    counts: Mapping[str, int]
    """Most pictures per split"""


class Pictures(Protocol):
    """(N, 3, S, S) uint8; a tensor is one."""

    def __len__(self) -> int:
        """N."""
        ...

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        """(M, 3, S, S) of the rows (M,)."""
        ...


PictureSets = Mapping[str, Pictures]


def embedded_pictures(sizes: Sizes) -> PictureSets:
    """Crops of photographs, resized; fewer than all are taken evenly, so from every photograph.

    Raises:
        DataError: the file is missing, truncated or altered.
    """
    sets: dict[str, Pictures] = {}
    for split, most in sizes.counts.items():
        crops = photographs(split)
        kept = min(most, len(crops))
        sets[split] = resized(crops[torch.arange(kept) * len(crops) // kept], sizes.high)
    return sets


def hash_embedded() -> str:
    """Of the embedded file."""
    return dataset(EMBEDDED).data_hash
