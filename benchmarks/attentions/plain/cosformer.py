"""cosFormer as linear attention with 2 D features, for the cosine's and the sine's part."""

import math

import torch
from torch import Tensor

from attentions.cosformer import CosFormer
from benchmarks.attentions.plain.linear_elu import normalised_sums
from cab import Pattern


def attend(module: CosFormer, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """phi(q) (phi(k)^T v) / phi(q) (phi(k)^T 1)"""
    horizon = module.horizon or max(q.shape[2], k.shape[2])
    fq, fk = reweighted_features(q, horizon), reweighted_features(k, horizon)
    return normalised_sums(fq, fk, v, module.pattern is Pattern.CAUSAL_SELF, 1e-6)


def reweighted_features(x: Tensor, horizon: int) -> Tensor:
    """relu(x) times the sine and the cosine of pi / 2 · position / horizon"""
    position = torch.arange(1, x.shape[2] + 1, dtype=x.dtype, device=x.device)[:, None]
    angle = math.pi / 2 * position / horizon
    x = x.relu()
    return torch.cat([x * angle.sin(), x * angle.cos()], dim=-1)
