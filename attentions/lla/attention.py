"""Local Linear Attention (Zuo et al. 2025, arXiv 2510.01450).

Softmax attention is local-constant (Nadaraya-Watson) regression of the values on the keys: it
averages the values of keys near the query. Local Linear Attention fits a *line* around each query
instead and reads it off at the query:

    min over b, W of  sum_j p_ij |v_j - b - W (k_j - q_i)|^2 + ridge |W|^2,   o_i = b
    p_ij = exp(q_i·k_j / sqrt(D)) / sum_l exp(q_i·k_l / sqrt(D))

which is the softmax output plus a slope times the query's distance from the attended mean key:

    o_i = vbar_i + Cov_i(v, k) (Cov_i(k, k) + ridge I)^-1 (q_i - kbar_i)

A large ridge gives softmax attention; values that are affine in the keys are reproduced exactly as
the ridge goes to zero.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.cache import KeyValueCache
from attentions.lla.cholesky import local_linear_cholesky
from attentions.lla.reference import local_linear_regression
from attentions.masks import visible
from cab import (
    AttentionContext,
    AttentionInfo,
    AttentionShape,
    AttentionSpec,
    Grade,
    Option,
    Pattern,
    register_attention,
)

_RIDGE_FLOOR = 1e-3
"""Rows with fewer visible keys than dimensions are singular without a ridge, in float32 already
with much less than this one."""


@register_attention(
    AttentionInfo(
        id="lla",
        title="Local Linear Attention",
        formula="o_i = vbar_i + Cov_i(v,k) (Cov_i(k,k) + ridge I)^-1 (q_i - kbar_i)",
        patterns={
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_SELF: Grade.EXTENSION,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L^2 D^2",
        memory="L D^2",
        paper="Zuo et al., Local Linear Attention: An Optimal Interpolation of Linear and "
        "Softmax Attention For Test-Time Regression",
        year=2025,
        url="https://arxiv.org/abs/2510.01450",
        options=(
            Option("ridge", 1.0, "ridge at the start, relative to a row's total weight"),
            Option("learn_ridge", True, "train the ridge, one positive number per head"),
            Option("scale", 1.0, "logits are scale q·k / sqrt(D)"),
            Option("qk_norm", False, "bring queries and keys to root mean square 1 first"),
        ),
    )
)
class LocalLinearAttention(KeyValueCache):
    """Local linear regression of the values on the keys, exact solve."""

    def __init__(
        self,
        spec: AttentionSpec,
        ridge: float = 1.0,
        learn_ridge: bool = True,
        scale: float = 1.0,
        qk_norm: bool = False,
    ) -> None:
        super().__init__(spec)
        if ridge <= 0:
            raise ValueError(f"ridge must be positive, not {ridge}")
        self.scale = scale * spec.head_dim**-0.5
        self.qk_norm = qk_norm
        self.floor = min(_RIDGE_FLOOR, ridge / 2)
        # Inverse of softplus, so that the ridge starts where it was asked to.
        start = ridge - self.floor
        start += math.log(-math.expm1(-start))
        value = torch.full((spec.heads,), start)
        if learn_ridge:
            self.raw_ridge: Tensor = nn.Parameter(value)
        else:
            self.register_buffer("raw_ridge", value)

    @property
    def ridge(self) -> Tensor:
        """(H,) positive."""
        return F.softplus(self.raw_ridge) + self.floor

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computes in float32 at least."""
        work = torch.promote_types(q.dtype, torch.float32)
        q, k = self._normalise(q.to(work), k.to(work))
        key_mask = None if context is None else context.key_mask
        if key_mask is not None:
            key_mask = key_mask.repeat_interleave(q.shape[1], dim=0)
        out = local_linear_cholesky(
            q.flatten(0, 1),
            k.flatten(0, 1),
            v.to(work).flatten(0, 1),
            self.ridge.to(work).repeat(q.shape[0]),
            key_mask,
            scale=self.scale,
            causal=self.pattern is Pattern.CAUSAL_SELF,
        )
        return out.unflatten(0, q.shape[:2]).to(v.dtype)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """One weighted ridge regression per query."""
        q, k = self._normalise(q, k)
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        return local_linear_regression(q, k, v, mask, self.ridge.to(q.dtype), self.scale)

    def flops(self, shape: AttentionShape) -> float:
        """Leading terms: second moments over the symmetric half, four products, the solves."""
        d, dv = shape.head_dim, shape.value_dim
        rows = shape.batch * shape.heads * shape.length_q
        pairs = rows * shape.length_k * (0.5 if self.pattern is Pattern.CAUSAL_SELF else 1.0)
        return pairs * (d * (d + 1) + 6 * d + 2 * dv) + rows * (d**3 / 3 + 2 * d**2)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The ridge is not decayed: decay would pull it to one fixed value."""
        if isinstance(self.raw_ridge, nn.Parameter):
            return [{"params": [self.raw_ridge], "weight_decay": 0.0}]
        return []

    def _normalise(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        if not self.qk_norm:
            return q, k
        width = (q.shape[-1],)
        return F.rms_norm(q, width), F.rms_norm(k, width)
