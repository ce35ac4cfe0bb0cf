"""Series as tokens: windows divided by the mean of their past, and bins of equal counts.

As Chronos (Ansari et al. 2024) reads series, with bins at quantiles of training values in place of
equally wide ones, since there are few.

Shapes: C series, N hours of a split, B windows, P hours of past, A hours ahead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from cab import Batch, seeds
from tasks.data.embedded import SPLITS, dataset
from tasks.sequence_transduction import FIRST_TOKEN
from tasks.summarization.vocabulary import START
from tasks.tts.autoregressive import sinusoid_at

QUARTERS = 4
"""Rows of the data in an hour"""

DAY, WEEK = 24, 168

_LEAST_MEAN, _LEAST_DEVIATION = 1e-3, 0.02
"""Of a window's past, in the data's unit and in means of the past; flatter ones are left out"""

_COUNTED = 4000
"""Training windows whose values the bins are made of"""


@cache
def load(name: str) -> Mapping[str, Tensor]:
    """(C, N) hourly means of every split.

    Raises:
        DataError: the embedded file is missing or altered.
    """
    data = dataset(name)
    names = [column for column in data.columns if column != "timestamp"]
    series = {}
    for split in SPLITS:
        table = data.select(split)
        rows = torch.stack([torch.tensor(table[column].to_numpy()) for column in names])
        hours = rows.shape[1] // QUARTERS
        series[split] = rows[:, : QUARTERS * hours].unflatten(1, (hours, -1)).mean(2)
    return series


class Drawn(NamedTuple):
    """Windows of series."""

    values: Tensor
    """(B, P + A), divided by the mean of the past"""
    mean: Tensor
    """(B, 1) of the past, in the data's unit"""


class Windows:
    """The windows of a split that say something: P hours of past and A ahead, of one series."""

    def __init__(self, series: Tensor, past: int, ahead: int) -> None:
        self._series, self._past, self._length = series, past, past + ahead
        pasts = series[:, : series.shape[1] - ahead]
        mean, square = (F.avg_pool1d(x, past, stride=1) for x in (pasts, pasts.square()))
        flat = square - mean.square() < (_LEAST_DEVIATION * mean).square()
        self._places = ((mean > _LEAST_MEAN) & ~flat).nonzero()

    def __len__(self) -> int:
        return len(self._places)

    def take(self, index: Tensor) -> Drawn:
        """The (B,) windows of these numbers, float32."""
        rows, starts = self._places[index].T
        values = self._series[rows[:, None], starts[:, None] + torch.arange(self._length)]
        mean = values[:, : self._past].mean(1, keepdim=True)
        return Drawn((values / mean).float(), mean.float())

    def random(self, count: int, generator: torch.Generator) -> Drawn:
        """``count`` windows, each of them uniform over all."""
        return self.take(torch.randint(len(self), (count,), generator=generator))


class Bins:
    """Values to bins that hold about equally many training values each, and back to their medians.

    A value that is so common that it would fill several bins has one (the zeros of sources at
    night), so that there are fewer.
    """

    def __init__(self, training: Windows, most: int) -> None:
        drawn = training.random(_COUNTED, seeds.generator(0, "statistics")).values.flatten()
        ranked = drawn.sort().values
        self.edges = ranked[torch.arange(1, most) * len(ranked) // most].unique()
        placed = self.of(ranked)
        self.medians = torch.stack(
            [ranked[placed == number].median() for number in range(len(self.edges) + 1)]
        )

    def __len__(self) -> int:
        return len(self.medians)

    def of(self, values: Tensor) -> Tensor:
        """Bins of values of any shape."""
        return torch.bucketize(values.contiguous(), self.edges)

    def batch(self, values: Tensor, past: int) -> Batch:
        """``source`` (B, P) and ``target`` (B, 1 + A) from START on, of (B, P + A) values."""
        tokens = FIRST_TOKEN + self.of(values)
        return {
            "source": tokens[:, :past],
            "target": F.pad(tokens[:, past:], (1, 0), value=START),
        }


def hour_codes(hours: Tensor, dim: int, base: float) -> Tensor:
    """(..., dim) codes of hours (...), one half the hour itself, the other where in the day and in
    the week it is, counted from the window's first hour: no calendar is told.
    """
    harmonics = torch.arange(1, dim // 8 + 1)
    waves = [2 * math.pi / period * hours[..., None] * harmonics for period in (DAY, WEEK)]
    circles = [part for wave in waves for part in (wave.sin(), wave.cos())]
    return torch.cat([sinusoid_at(hours, dim // 2, base), *circles], dim=-1)
