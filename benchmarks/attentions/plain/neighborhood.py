"""Neighbourhood attention on a window of keys gathered for every query; without dilation."""

import torch
from torch import Tensor

from attentions.neighborhood import NeighborhoodAttention


def attend(module: NeighborhoodAttention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    length, width = k.shape[-2], min(module.window, k.shape[-2])
    place = torch.arange(length, device=q.device)
    first = place - module.window + 1
    if not module.pattern.causal:
        first = (place - module.window // 2).clamp(0, length - width)
    keys = first[:, None] + torch.arange(module.window, device=q.device)
    # (B, H, L, width, D)
    near_k, near_v = (x[..., keys.clamp(min=0, max=length - 1), :] for x in (k, v))
    scores = torch.einsum("bhid,bhiwd->bhiw", q, near_k) / q.shape[-1] ** 0.5
    scores = scores.masked_fill((keys < 0) | (keys >= length), float("-inf"))
    return torch.einsum("bhiw,bhiwd->bhid", scores.softmax(dim=-1), near_v)
