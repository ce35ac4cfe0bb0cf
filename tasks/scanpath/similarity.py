"""How alike two scanpaths are."""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.scanpath.scenes import NOTHING


def sequence_similarity(first: Tensor, second: Tensor) -> Tensor:
    """(B,) 1 - edit distance / length of the longer one, of two (B, T) paths of objects.

    1 for equal paths, 0 for paths without an object in common; insertions, deletions and
    replacements cost 1 (the sequence score of the scanpath literature, with objects as letters).
    """
    batch, length = first.shape
    lengths = [(path != NOTHING).sum(1) for path in (first, second)]
    table = torch.zeros(batch, length + 1, length + 1, dtype=torch.long)
    table[:, :, 0] = torch.arange(length + 1)
    table[:, 0] = torch.arange(length + 1)
    for i in range(1, length + 1):
        for j in range(1, length + 1):
            replaced = table[:, i - 1, j - 1] + (first[:, i - 1] != second[:, j - 1])
            other = torch.minimum(table[:, i - 1, j], table[:, i, j - 1]) + 1
            table[:, i, j] = torch.minimum(replaced, other)
    distance = table[torch.arange(batch), lengths[0], lengths[1]]
    longest = torch.maximum(*lengths)
    return 1 - distance.double() / longest.clamp(min=1)
