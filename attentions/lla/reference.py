"""Local Linear Attention as its definition reads: one weighted ridge regression per query."""

from __future__ import annotations

import torch
from torch import Tensor

from attentions.exact import exact_softmax


def local_linear_regression(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, ridge: Tensor, scale: float
) -> Tensor:
    """Value at k = q_i of the local linear fit around q_i (Zuo et al. 2025, section 2).

        min over b, W of  sum_j p_ij |v_j - b - W (k_j - q_i)|^2 + ridge |W|^2,   o_i = b

    with the weights p_ij = exp(scale q_i·k_j) normalised over the visible keys, so ridge is
    relative to the total weight. Solved through the normal equations of the design [1, k_j - q_i].

    Args:
        q: (B, H, Lq, D). k: (B, H, Lk, D). v: (B, H, Lk, Dv).
        mask: bool, True where visible, broadcastable to (B, H, Lq, Lk), or None.
        ridge: (H,) positive.
        scale: factor of q·k in the exponent.
    """
    p = exact_softmax(q, k, mask, scale)
    offset = k[..., None, :, :] - q[..., :, None, :]
    design = torch.cat([torch.ones_like(offset[..., :1]), offset], dim=-1)
    weighted = (p[..., None] * design).transpose(-1, -2)
    penalty = torch.eye(design.shape[-1], dtype=q.dtype, device=q.device)
    penalty[0, 0] = 0.0
    normal = weighted @ design + ridge[:, None, None, None] * penalty
    empty = p.sum(-1) == 0
    normal[..., 0, 0] = normal[..., 0, 0] + empty.to(q.dtype)
    return torch.linalg.solve(normal, weighted @ v[..., None, :, :])[..., 0, :]
