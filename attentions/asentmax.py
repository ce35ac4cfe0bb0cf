"""Adaptive-scalable entmax: sparse weights at a temperature that learns how to follow the length
(Vasylenko et al. 2026, arXiv 2506.16640).

    o_i = sum_j p_ij v_j,   p_i = entmax_alpha(t_i q_i·k_j / sqrt(D))
    t_i = delta + beta_i ln(n_i + 1)^gamma_i,   beta_i = softplus(w_beta·x_i),
    gamma_i = 2 tanh(w_gamma·x_i)

over the n_i keys j that row i sees; x_i is the layer's input at the query, and w_beta and w_gamma
are vectors of each head, without biases. Entmax gives weights that are exactly zero
(`attentions.shared.entmax`), so that keys which do not matter do not dilute the others however many
there are; the temperature lets a head stay sparse, or not, as keys are added. A row's weights add
up to 1. Alpha 1 at a factor of one is softmax attention.

The paper has ln(n), of which a negative power does not exist at one key; its code counts from two,
as is done here, with delta = 1 and alpha = 1.5. Its code also has a beta and a gamma that are
learned for a head and are the same at all tokens (``temperature="learned"``), and plain entmax
(``none``). What it does beside, heads of which half tell positions by slopes and half by nothing,
is a backbone's.

Blocks of queries are done one after the other, and again in the backward pass.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.cache import KeyValueCache
from attentions.shared.entmax import entmax, plain_entmax
from attentions.shared.layer_inputs import query_input
from attentions.shared.masks import visible
from attentions.shared.recompute import recomputed
from attentions.shared.visible_means import visible_count
from attentions.softmax import softmax_flops
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

_BLOCK = 64
"""Queries that are done at a time"""
_RANGE = 2.0
"""Of gamma, in both directions"""
_PER_PAIR = 40
"""Operations of a pair beside products: about ten steps that look for the threshold"""


@register_attention(
    AttentionInfo(
        id="asentmax",
        family=Family.SOFTMAX,
        title="Adaptive-scalable entmax",
        formula="o_i = entmax_alpha((delta + beta_i ln(n_i + 1)^gamma_i) q_i·k_j / sqrt(D)) v_j, "
        "beta_i = softplus(w·x_i), gamma_i = 2 tanh(u·x_i), n_i keys seen",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.EXTENSION,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L^2 D",
        memory="L",
        paper="Vasylenko et al., Long-Context Generalization with Sparse Attention",
        year=2026,
        url="https://arxiv.org/abs/2506.16640",
        options=(
            Option("alpha", 1.5, "1 is softmax, 2 is sparsemax", least=1, most=2),
            Option(
                "temperature",
                "adaptive",
                "beta and gamma of each token, of each head alone, or a factor of one",
                choices=("adaptive", "learned", "none"),
            ),
            Option("delta", 1.0, "the constant in the factor of scores"),
        ),
    )
)
class AdaptiveScalableEntmax(KeyValueCache):
    """Entmax attention; needs the queries' layer input in its context where it is adaptive."""

    def __init__(
        self,
        spec: AttentionSpec,
        alpha: float = 1.5,
        temperature: str = "adaptive",
        delta: float = 1.0,
    ) -> None:
        super().__init__(spec)
        self.alpha, self.delta, self.temperature = alpha, delta, temperature
        if temperature == "adaptive":
            width = spec.embed_dim or spec.heads * spec.head_dim
            self.beta = nn.Linear(width, spec.heads, bias=False)
            self.gamma = nn.Linear(width, spec.heads, bias=False)
        elif temperature == "learned":
            self.factor = nn.Parameter(torch.empty(spec.heads).uniform_(0.1, 1.0))
            self.power = nn.Parameter(0.1 * torch.randn(spec.heads))

    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least.

        Raises:
            ValueError: the context has no ``query_input`` to take the temperature from.
        """
        dtype, length, lag = v.dtype, k.shape[-2], k.shape[-2] - q.shape[-2]
        wide = torch.promote_types(dtype, torch.float32)
        q, k, v = (x.to(wide) for x in (q, k, v))
        q = q * (q.shape[-1] ** -0.5 * self._factors(q, k, context))
        mask = None if context is None else context.key_mask
        causal = self.pattern is Pattern.CAUSAL_SELF
        outputs = []
        for first in range(0, q.shape[-2], _BLOCK):
            rows = q[..., first : first + _BLOCK, :]
            last = lag + first + rows.shape[-2] if causal else length
            block = partial(self._block, mask=None if mask is None else mask[:, :last])
            outputs.append(recomputed(block, rows, k[..., :last, :], v[..., :last, :]))
        return torch.cat(outputs, dim=-2).to(dtype)

    @without_autocast
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """All scores, the keys that the mask leaves counted, thresholds by bisection."""
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        seen = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device)
        seen = seen if mask is None else seen & mask
        scores = q @ k.mT * q.shape[-1] ** -0.5
        if self.temperature != "none":
            beta, gamma = self._exponents(q, context)
            count = seen.sum(-1, keepdim=True).clamp(min=1)
            scores = scores * (self.delta + beta * (count + 1).to(q.dtype).log() ** gamma)
        weights = plain_entmax(scores.masked_fill(~seen, -torch.inf), self.alpha)
        return weights.to(v.dtype) @ v

    def flops(self, shape: AttentionShape) -> float:
        """Those of softmax attention, of the search for thresholds, and of the temperature."""
        pairs = shape.batch * shape.heads * shape.length_q * shape.length_k
        causal = self.pattern is Pattern.CAUSAL_SELF
        gates = 0
        if self.temperature == "adaptive":
            gates = 4 * shape.batch * shape.length_q * self.beta.in_features * shape.heads
        return softmax_flops(shape, causal) + _PER_PAIR * pairs * (0.5 if causal else 1.0) + gates

    def _block(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Outputs of scaled queries, in causal self attention those at the last keys."""
        context = None if mask is None else AttentionContext(key_mask=mask)
        scores = q @ k.mT
        seen = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        if seen is not None:
            scores = scores.masked_fill(~seen, -torch.inf)
        return entmax(scores, self.alpha) @ v

    def _factors(self, q: Tensor, k: Tensor, context: AttentionContext | None) -> Tensor | float:
        """(B or 1, H, Lq, 1) what scores are multiplied by."""
        if self.temperature == "none":
            return 1.0
        beta, gamma = self._exponents(q, context)
        count = visible_count(k, self.pattern, q.shape[-2], context).clamp(min=1)
        return self.delta + beta * (count + 1).log().to(q.dtype) ** gamma

    def _exponents(self, q: Tensor, context: AttentionContext | None) -> tuple[Tensor, Tensor]:
        """Beta and gamma, (B, H, Lq, 1) or (H, 1, 1), in the dtype of the queries."""
        if self.temperature == "learned":
            factor, power = (x.to(q.dtype)[:, None, None] for x in (self.factor, self.power))
            return factor, power
        x = query_input(context, "asentmax", "temperature").to(self.beta.weight.dtype)
        beta, gamma = (layer(x).mT[..., None].to(q.dtype) for layer in (self.beta, self.gamma))
        return F.softplus(beta), _RANGE * gamma.tanh()
