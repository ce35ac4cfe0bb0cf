"""Local Linear Attention as its definition reads, and in the closed form of the fast paths."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.shared.exact import exact_softmax


def weighted_ridge_regression(regressors: Tensor, p: Tensor, v: Tensor, ridge: Tensor) -> Tensor:
    """Intercept of one weighted ridge regression per query.

        min over b, W of  sum_j p_ij |v_j - b - W f_ij|^2 + ridge |W|^2,   o_i = b

    Least squares by QR factorisation of the rows sqrt(p_ij) [1, f_ij] and, for the penalty,
    sqrt(ridge) [0, I]: normal equations would square the condition number.

    Args:
        regressors: (B, H, Lq, Lk, F) f_ij.
        p: (B, H, Lq, Lk) weights; a row without any gives zero.
        v: (B, H, Lk, Dv).
        ridge: (H,) positive.
    """
    size = regressors.shape[-1]
    # The square root has no derivative at zero, where a weight has no effect either.
    root = torch.where(p > 0, p, 1.0).sqrt() * (p > 0)
    design = root[..., None] * F.pad(regressors, (1, 0), value=1.0)
    penalty = F.pad(torch.eye(size, dtype=p.dtype, device=p.device), (1, 0))
    penalty = penalty * ridge[:, None, None, None].sqrt()
    empty = F.pad((p.sum(-1) == 0)[..., None, None].to(p.dtype), (0, size))
    rows = [design, penalty.expand(*p.shape[:-1], size, size + 1), empty]
    targets = F.pad(root[..., None] * v[..., None, :, :], (0, 0, 0, size + 1))
    q_factor, r_factor = torch.linalg.qr(torch.cat(rows, dim=-2))
    fit = torch.linalg.solve_triangular(r_factor, q_factor.mT @ targets, upper=True)
    return fit[..., 0, :]


def local_linear_regression(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, ridge: Tensor, scale: float
) -> Tensor:
    """Value at k = q_i of the local linear fit around q_i (Zuo et al. 2025, section 2).

        min over b, W of  sum_j p_ij |v_j - b - W (k_j - q_i)|^2 + ridge |W|^2,   o_i = b

    with the weights p_ij = exp(scale q_i·k_j) normalised over the visible keys, so ridge is
    relative to the total weight.

    Args:
        q: (B, H, Lq, D). k: (B, H, Lk, D). v: (B, H, Lk, Dv).
        mask: bool, True where visible, broadcastable to (B, H, Lq, Lk), or None.
        ridge: (H,) positive.
        scale: factor of q·k in the exponent.
    """
    offset = k[..., None, :, :] - q[..., :, None, :]
    return weighted_ridge_regression(offset, exact_softmax(q, k, mask, scale), v, ridge)


def local_linear_closed_form(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, ridge: Tensor, scale: float
) -> Tensor:
    """The same by the mean-centred closed form, every matrix written out (docs/lla.md).

        kbar_i = sum_j p_ij k_j
        C_i = sum_j p_ij (k_j - kbar_i)(k_j - kbar_i)^T + ridge I
        o_i = sum_j p_ij (1 + (k_j - kbar_i)·C_i^-1 (q_i - kbar_i)) v_j

    Args: see `local_linear_regression`.
    """
    p = exact_softmax(q, k, mask, scale)
    kbar = p @ k
    spread = k[..., None, :, :] - kbar[..., :, None, :]
    identity = torch.eye(k.shape[-1], dtype=k.dtype, device=k.device)
    system = (p[..., None] * spread).transpose(-1, -2) @ spread
    system = system + ridge[:, None, None, None] * identity
    x = torch.linalg.solve(system, q - kbar)
    return (p * (1.0 + (spread @ x[..., None])[..., 0])) @ v
