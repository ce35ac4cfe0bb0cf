"""Feature maps of linear attention: phi with phi(q)·phi(k) >= 0 in the place of exp(q·k).

elu + 1 (Katharopoulos et al. 2020, arXiv 2006.16236), relu, and the positive random features of
FAVOR+ (Choromanski et al. 2021, arXiv 2009.14794, lemma 1), whose products are an unbiased
estimate of exp(q·k / sqrt(D)). All are computed in float32 at least.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.first_order import first_derivatives_only


def work_dtype(x: Tensor) -> torch.dtype:
    """The dtype of features: that of x, and float32 where x has less."""
    return torch.promote_types(x.dtype, torch.float32)


def elu_features(x: Tensor) -> Tensor:
    """elu(x) + 1, positive."""
    apply: Any = _EluFeatures.apply
    return apply(x.to(work_dtype(x)))


def relu_features(x: Tensor) -> Tensor:
    """max(x, 0)."""
    return F.relu(x.to(work_dtype(x)))


class _EluFeatures(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        features = x.clamp(max=0.0).exp_().add_(x.clamp(min=0.0))
        ctx.save_for_backward(features)
        return features

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (features,) = ctx.saved_tensors
        # The slope is exp(x) where x < 0, which is the feature itself, and 1 elsewhere. As features
        # are the output, autograd can differentiate this again.
        return features.clamp(max=1.0).mul_(grad)


def gaussian_directions(count: int, dim: int, orthogonal: bool) -> Tensor:
    """(count, dim) rows, each distributed as a standard Gaussian vector.

    Orthogonal: the rows of every block of ``dim`` are orthogonal to each other, and their lengths
    are independent, which lowers the variance.
    """
    gaussian = torch.randn(count, dim)
    if not orthogonal:
        return gaussian
    blocks = []
    for _ in range(-(-count // dim)):
        rotation, triangle = torch.linalg.qr(torch.randn(dim, dim))
        # Signs that make the decomposition unique make the rotation uniformly distributed.
        blocks.append(rotation * triangle.diagonal().sign())
    return torch.cat(blocks)[:count] * gaussian.norm(dim=1, keepdim=True)


def log_positive_features(x: Tensor, directions: Tensor) -> Tensor:
    """(B, H, L, m) logarithms of sqrt(m) phi(x): w_r·y - |y|^2 / 2 with y = x D^(-1/4).

    Args:
        x: (B, H, L, D).
        directions: (H, m, D), in the dtype of x.
    """
    logs = torch.matmul(x, directions.mT * x.shape[-1] ** -0.25)
    return logs.sub_(x.square().sum(-1, keepdim=True), alpha=0.5 * x.shape[-1] ** -0.5)


@without_autocast
def positive_features(
    q: Tensor, k: Tensor, directions: Tensor, key_mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Positive random features of queries and keys, up to factors that cancel in their use.

    Linear attention divides one sum of phi(q_i)·phi(k_j) by another over the same keys. Feature r
    of all keys may therefore be divided by a constant c_r, if feature r of the queries is
    multiplied by it, and the features of each query by a constant of its own. Here c_r is the
    largest feature r of a key, and a query's features add up to one: nothing overflows, whatever
    the inputs, and |q|^2 and m^(-1/2) need not be computed. As the constants cancel, no gradient
    flows into them: **the features serve only for normalised attention**.

    Args:
        q: (B, H, Lq, D), in float32 at least. k: (B, H, Lk, D), likewise.
        directions: (H, m, D) in the same dtype; they get no gradient.
        key_mask: (B, Lk) bool, True where valid: a masked key, which must be finite, has features
            zero.

    Returns:
        (B, H, Lq, m) and (B, H, Lk, m).
    """
    apply: Any = _PositiveFeatures.apply
    return apply(q, k, directions, key_mask)


class _PositiveFeatures(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, directions: Tensor, key_mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        logs = log_positive_features(k, directions)
        if key_mask is not None:
            logs.masked_fill_(~key_mask[:, None, :, None], -math.inf)
        top = logs.amax(-2, keepdim=True)
        if key_mask is not None:
            top.masked_fill_(top == -math.inf, 0.0)
        keys = logs.sub_(top).exp_()
        directions = directions * q.shape[-1] ** -0.25
        queries = torch.matmul(q, directions.mT).add_(top).softmax(-1)
        ctx.save_for_backward(queries, keys, k, directions)
        return queries, keys

    @staticmethod
    @first_derivatives_only
    @without_autocast
    def backward(ctx: Any, dqueries: Tensor, dkeys: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, k, directions = ctx.saved_tensors
        dq = torch.matmul(dqueries * queries, directions)
        dlogs = dkeys * keys
        dk = torch.matmul(dlogs, directions)
        dk.addcmul_(k, dlogs.sum(-1, keepdim=True), value=-(k.shape[-1] ** -0.5))
        return dq, dk, None, None
