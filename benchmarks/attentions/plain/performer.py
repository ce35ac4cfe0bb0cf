"""FAVOR+ with the stabilisers of its own code: the largest logit of a query, and of all keys."""

import torch
from torch import Tensor

from attentions.performer import Performer
from benchmarks.attentions.plain.linear_elu import normalised_sums
from cab import Pattern


def attend(module: Performer, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """phi(q) (phi(k)^T v) / phi(q) (phi(k)^T 1)"""
    fq = softmax_features(q, module.directions, over=(-1,))
    fk = softmax_features(k, module.directions, over=(-2, -1))
    return normalised_sums(fq, fk, v, causal=module.pattern is Pattern.CAUSAL_SELF)


def softmax_features(x: Tensor, directions: Tensor, over: tuple[int, ...]) -> Tensor:
    """exp(w·x - |x|^2 / 2) / sqrt(m), up to a factor"""
    x = x * x.shape[-1] ** -0.25
    projected = torch.einsum("bhld,hmd->bhlm", x, directions)
    stabiliser = projected.amax(dim=over, keepdim=True).detach()
    norm = x.square().sum(dim=-1, keepdim=True) / 2
    return directions.shape[1] ** -0.5 * torch.exp(projected - norm - stabiliser)
