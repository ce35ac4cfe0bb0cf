"""Sliding-window attention on a window of keys unfolded for every query."""

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.local import LocalAttention


def attend(module: LocalAttention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    before, after, length = module.before, module.after, k.shape[-2]
    width = before + 1 + after
    # (B, H, L, D, width)
    k, v = (F.pad(x, (0, 0, before, after)).unfold(2, width, 1) for x in (k, v))
    scores = torch.einsum("bhid,bhidw->bhiw", q, k) / q.shape[-1] ** 0.5
    key = torch.arange(length, device=q.device)[:, None] - before
    key = key + torch.arange(width, device=q.device)
    scores = scores.masked_fill((key < 0) | (key >= length), float("-inf"))
    return torch.einsum("bhiw,bhidw->bhid", scores.softmax(dim=-1), v)
