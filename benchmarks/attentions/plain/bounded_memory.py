"""ABC with every slot of every prefix written out."""

import torch
from torch import Tensor

from cab import Attention, Pattern


def attend(module: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax_r(q_i·K_r / sqrt(D)) V, K = softmax_j(k W_k)^T k and V = softmax_j(v W_v)^T v"""
    control_k, control_v = module.control_k, module.control_v
    if module.pattern is Pattern.CAUSAL_SELF:
        keys, values = _running_means(k, control_k), _running_means(v, control_v)
        scores = torch.einsum("bhld,bhlrd->bhlr", q, keys) / q.shape[-1] ** 0.5
        return torch.einsum("bhlr,bhlrd->bhld", scores.softmax(dim=-1), values)
    keys = (k @ control_k).softmax(dim=-2).transpose(-1, -2) @ k
    values = (v @ control_v).softmax(dim=-2).transpose(-1, -2) @ v
    return (q @ keys.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(dim=-1) @ values


def _running_means(x: Tensor, control: Tensor) -> Tensor:
    """(B, H, L, r, D): the prefix sums of e^a x over those of e^a"""
    logits = x @ control
    weights = (logits - logits.amax(dim=-2, keepdim=True)).exp()
    written = torch.einsum("bhlr,bhld->bhlrd", weights, x)
    return written.cumsum(dim=2) / weights.cumsum(dim=2)[..., None]
