"""Parallax: parameterised Local Linear Attention (Zuo et al. 2026, arXiv 2605.29157).

Local Linear Attention corrects the softmax output along x_i = C_i^-1 (q_i - kbar_i), which takes a
linear solve per query. Parallax learns that direction instead: a probe rho_i, projected from the
layer's input like a second query, gives

    o_i = vbar_i - Cov_i(v, k) rho_i = sum_j p_ij (1 - (k_j - kbar_i)·rho_i) v_j

at the cost of softmax attention and two more products per key. A zero probe is softmax attention.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.lla.probe import local_probe
from attentions.shared.cache import KeyValueCache
from attentions.shared.exact import exact_softmax
from attentions.shared.masks import visible
from cab import (
    AttentionContext,
    AttentionInfo,
    AttentionShape,
    AttentionSpec,
    Family,
    Grade,
    Option,
    Pattern,
    register_attention,
)

_PROBE_STD = 0.02
"""Of the projection's initial weights, as its authors train it."""


@register_attention(
    AttentionInfo(
        id="parallax",
        family=Family.REGRESSION,
        title="Parallax",
        formula="o_i = vbar_i - Cov_i(v,k) rho_i, rho = W_R x",
        patterns={
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_SELF: Grade.EXTENSION,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L^2 D",
        memory="L D",
        paper="Zuo et al., Parallax: Parameterized Local Linear Attention for Language Modeling",
        year=2026,
        url="https://arxiv.org/abs/2605.29157",
        options=(
            Option("qk_norm", False, "bring queries, probes and keys to root mean square 1 first"),
            Option("rank", 0, "of the probes' projection W_R; 0: full, as published", least=0),
        ),
    )
)
class Parallax(KeyValueCache):
    """Softmax attention corrected along a learned probe; needs the layer input in its context."""

    def __init__(self, spec: AttentionSpec, qk_norm: bool = False, rank: int = 0) -> None:
        super().__init__(spec)
        width = spec.heads * spec.head_dim
        self.narrow: nn.Module = nn.Identity()
        inputs = spec.embed_dim or width
        if rank:
            self.narrow = nn.Linear(inputs, rank, bias=False)
            inputs = rank
        self.probe = nn.Linear(inputs, width, bias=False)
        nn.init.normal_(self.probe.weight, std=_PROBE_STD)
        self.qk_norm = qk_norm
        self.scale = spec.head_dim**-0.5

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`.

        Raises:
            ValueError: the context has no ``query_input`` to project the probes from.
        """
        q, k, rho = self._prepare(q, k, context)
        key_mask = None if context is None else context.key_mask
        if key_mask is not None:
            key_mask = key_mask.repeat_interleave(q.shape[1], dim=0)
        out = local_probe(
            q.flatten(0, 1),
            k.flatten(0, 1),
            v.flatten(0, 1),
            -rho.flatten(0, 1),
            key_mask,
            scale=self.scale,
            causal=self.pattern is Pattern.CAUSAL_SELF,
        )
        return out.unflatten(0, q.shape[:2])

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """The softmax output minus the covariance of values and keys times the probe."""
        q, k, rho = self._prepare(q, k, context)
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        p = exact_softmax(q, k, mask, self.scale)
        kbar, vbar = p @ k, p @ v
        covariance = torch.einsum("bhij,bhjd,bhje->bhide", p, v, k)
        covariance = covariance - vbar[..., :, None] * kbar[..., None, :]
        return vbar - (covariance @ rho[..., None])[..., 0]

    def flops(self, shape: AttentionShape) -> float:
        """Scores, key means, probed scores and the weighted sum."""
        pairs = shape.batch * shape.heads * shape.length_q * shape.length_k
        half = 0.5 if self.pattern is Pattern.CAUSAL_SELF else 1.0
        return half * pairs * (6 * shape.head_dim + 2 * shape.value_dim)

    def _prepare(
        self, q: Tensor, k: Tensor, context: AttentionContext | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and probes (B, H, Lq, D)."""
        if context is None or context.query_input is None:
            raise ValueError(
                "parallax projects its probes from the layer's input: call it with "
                "context=AttentionContext(query_input=x), x of shape (B, Lq, E)"
            )
        rho = self.probe(self.narrow(context.query_input.to(self.probe.weight.dtype)))
        rho = rho.unflatten(-1, (self.spec.heads, -1)).transpose(1, 2).to(q.dtype)
        if not self.qk_norm:
            return q, k, rho
        width = (q.shape[-1],)
        return F.rms_norm(q, width), F.rms_norm(k, width), F.rms_norm(rho, width)
