"""What Local Linear Attention is measured against: its plain forms, and softmax attention.

All are causal, take q, k, v (H, L, D), are differentiated by autograd and compute in the dtype of
their inputs:

    covariance_einsum    C_i of every row by one product of the weights with k_j k_j^T
    every_difference     C_i of every row from all the differences k_j - q_i
    naive_softmax        softmax attention with its (L, L) weights in memory
    fused_softmax        softmax attention by torch's SDPA

The first two are what one writes who has the formula and torch: nothing in them is made slow on
purpose, and nothing is cut into blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

RIDGE = 1.0
"""The default of the entry ``lla``."""


def causal_weights(q: Tensor, k: Tensor) -> Tensor:
    """(H, L, L) softmax weights of q·k / sqrt(D) over the keys up to each query's own."""
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
    return scores.masked_fill(hidden, float("-inf")).softmax(-1)


def covariance_einsum(q: Tensor, k: Tensor, v: Tensor, ridge: float = RIDGE) -> Tensor:
    """Mean-centred form, with einsum("hij,hjd,hje->hide", p, k, k) as one matrix product.

    C_i = sum_j p_ij k_j k_j^T - kbar_i kbar_i^T + ridge I
    o_i = sum_j p_ij (1 + (k_j - kbar_i)·C_i^-1 (q_i - kbar_i)) v_j
    """
    dim = q.shape[-1]
    p = causal_weights(q, k)
    kbar = p @ k
    products = (k[..., :, None] * k[..., None, :]).flatten(-2)
    second = (p @ products).unflatten(-1, (dim, dim))
    identity = torch.eye(dim, dtype=q.dtype, device=q.device)
    covariance = second - kbar[..., :, None] * kbar[..., None, :] + ridge * identity
    x = torch.linalg.solve(covariance, q - kbar)
    along = x @ k.mT - (x * kbar).sum(-1, keepdim=True)
    return (p * (1 + along)) @ v


def every_difference(q: Tensor, k: Tensor, v: Tensor, ridge: float = RIDGE) -> Tensor:
    """Normal equations of the fit around each query, from z_ij = k_j - q_i (H, L, L, D).

    min over b, W of  sum_j p_ij |v_j - b - W z_ij|^2 + ridge |W|^2,   o_i = b

    The weights of a row sum to one, so eliminating b leaves the covariance of z_ij.
    """
    p = causal_weights(q, k)
    z = k[..., None, :, :] - q[..., :, None, :]
    weighted = p[..., None] * z
    mean = weighted.sum(-2)
    identity = torch.eye(q.shape[-1], dtype=q.dtype, device=q.device)
    normal = weighted.mT @ z - mean[..., :, None] * mean[..., None, :] + ridge * identity
    x = torch.linalg.solve(normal, -mean)
    along = (z @ x[..., None])[..., 0] - (x * mean).sum(-1, keepdim=True)
    return (p * (1 + along)) @ v


def naive_softmax(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention as its formula reads."""
    return causal_weights(q, k) @ v


def fused_softmax(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention without its weights in memory."""
    return F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
