"""Softmax attention with the matrix of scores written out."""

import torch
from torch import Tensor

from cab import Attention, Pattern


def attend(module: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v"""
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if module.pattern is Pattern.CAUSAL_SELF:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(hidden, float("-inf"))
    return scores.softmax(dim=-1) @ v
