"""What the projections of a trained layer have become: circuits of queries and keys, of values and
outputs.

He et al. (2025, arXiv 2503.12734) find in trained softmax layers that every head compares inputs
by a multiple of the identity and reads the target alone, with heads of both signs:

    KQ_h = W_q^T W_k / sqrt(D) = omega_h I    from x to x; nothing from x to y
    OV_h = W_o W_v = (0 .. 0, mu_h),          sum over heads of mu_h = 0,  omega_h mu_h > 0

which is a debiased gradient step. How much of that holds is measured here for any mechanism that is
given these projections, as shares of squared sizes summed over heads, so that a head that does next
to nothing has next to no say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from cab.analysis import Analysis
from tasks.in_context_regression.linear_model import OneLayer

KQ_DIAGONAL = Analysis("kq_diagonal", "1", True)
"""Share of KQ, from the inputs of a query to a whole pair, that is omega I: 1 where it is diagonal
and the same for all coordinates, 1 / (d (d + 1)) by chance"""
OV_LAST_ENTRY = Analysis("ov_last_entry", "1", True)
"""Share of OV that reads the target: 1 / (d + 1) by chance"""
OV_IMBALANCE = Analysis("ov_imbalance", "1", False)
"""|sum of mu| over sum of |mu|: 0 where positive and negative heads cancel, 1 where all have one
sign"""
SIGN_AGREEMENT = Analysis("kq_ov_agreement", "1", True)
"""Sum of omega mu over sum of |omega mu|: 1 where heads that seek what is alike add its targets and
the others subtract theirs, -1 where it is the other way round"""


def circuits(layer: OneLayer, dim: int) -> tuple[Tensor, Tensor]:
    """KQ (H, d, d + k) from the inputs of a query to a pair, and OV (H, k, d + k) from a pair to
    the prediction, of d inputs and k targets.
    """
    heads, size = layer.heads, layer.query.weight.shape[0] // layer.heads
    q, k, v = (m.weight.unflatten(0, (heads, size)) for m in (layer.query, layer.key, layer.value))
    o = layer.output.weight.unflatten(1, (heads, size)).transpose(0, 1)
    return (q.mT @ k)[:, :dim] / size**0.5, o @ v


def structure(layer: OneLayer, dim: int) -> Mapping[Analysis, float]:
    """The four numbers of a layer with one target; a share of nothing is not a number."""
    kq, ov = (x.double() for x in circuits(layer, dim))
    omega = kq[..., :dim].diagonal(dim1=1, dim2=2).mean(-1)
    mu = ov[:, 0, dim]
    return {
        KQ_DIAGONAL: _part(dim * omega.square().sum(), kq.square().sum()),
        OV_LAST_ENTRY: _part(mu.square().sum(), ov.square().sum()),
        OV_IMBALANCE: _part(mu.sum().abs(), mu.abs().sum()),
        SIGN_AGREEMENT: _part((omega * mu).sum(), (omega * mu).abs().sum()),
    }


def _part(one: Tensor, whole: Tensor) -> float:
    return (one / whole).item() if whole > 0 else math.nan


def describe_heads(layer: OneLayer, dim: int) -> str:
    """A line per head: omega, the size of what KQ has beside it between inputs, and mu."""
    kq, ov = circuits(layer, dim)
    lines = ["head     omega  off-diagonal        mu"]
    for head, block in enumerate(kq[..., :dim]):
        omega = block.diagonal().mean().item()
        rest = (block - omega * torch.eye(dim, device=block.device)).square().mean().sqrt().item()
        lines.append(f"{head:4d}  {omega:8.3f}  {rest:12.3f}  {ov[head, 0, dim].item():8.3f}")
    return "\n".join(lines) + "\n"
