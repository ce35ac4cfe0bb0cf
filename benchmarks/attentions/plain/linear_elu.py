"""Linear attention with elu + 1: two products over all keys, or prefix sums by chunks of keys."""

import torch
from torch import Tensor
from torch.nn import functional as F

from cab import Attention, Pattern

_CHUNK = 64


def attend(module: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """phi(q) (phi(k)^T v) / phi(q) (phi(k)^T 1)"""
    fq, fk = F.elu(q) + 1, F.elu(k) + 1
    return normalised_sums(fq, fk, v, causal=module.pattern is Pattern.CAUSAL_SELF)


def normalised_sums(
    fq: Tensor, fk: Tensor, v: Tensor, causal: bool, least_denominator: float = 0.0
) -> Tensor:
    """Linear attention of features."""
    if causal:
        sums = causal_sums(fq, fk, torch.cat([v, torch.ones_like(v[..., :1])], dim=-1))
        return sums[..., :-1] / sums[..., -1:].clamp(min=least_denominator)
    values = torch.einsum("bhjr,bhjd->bhrd", fk, v)
    denominator = torch.einsum("bhir,bhr->bhi", fq, fk.sum(dim=2)).clamp(min=least_denominator)
    return torch.einsum("bhir,bhrd,bhi->bhid", fq, values, 1 / denominator)


def causal_sums(fq: Tensor, fk: Tensor, v: Tensor) -> Tensor:
    """The sums over j <= i of fq_i·fk_j v_j: weights within a chunk, a prefix sum before it."""
    length = fq.shape[-2]
    padding = -length % _CHUNK
    fq, fk, v = (F.pad(x, (0, 0, 0, padding)).unflatten(2, (-1, _CHUNK)) for x in (fq, fk, v))
    moments = fk.transpose(-1, -2) @ v
    before = moments.cumsum(dim=2) - moments
    within = (fq @ fk.transpose(-1, -2)).tril() @ v
    return (within + fq @ before).flatten(2, 3)[:, :, :length]
