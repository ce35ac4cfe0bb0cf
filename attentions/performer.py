"""Performer: softmax attention estimated with positive random features (FAVOR+; Choromanski et al.
2021, arXiv 2009.14794).

    phi_r(x) = m^(-1/2) exp(w_r·y - |y|^2 / 2),   y = x D^(-1/4),   r = 1 .. m      (lemma 1)
    o_i = sum_j phi(q_i)·phi(k_j) v_j / sum_j phi(q_i)·phi(k_j)

over the keys j that row i sees; noncausally, as they see the same keys, with a mean of the values
under each feature:

    o_i = sum_r p_ir n_r,   p_i = softmax_r(w_r·y_i + M_r),   n_r = sum_j phi_r(k_j) v_j / e^M_r

with M_r the logarithm of sum_j phi_r(k_j). The m directions w_r (H, m, D) are standard Gaussian
vectors of each head, orthogonal within blocks of D, so that phi(q)·phi(k) is an unbiased estimate
of exp(q·k / sqrt(D)). Causally the sums over j are prefix sums.

The authors' code subtracts a stabiliser in the exponent and then adds 1e-6 to each feature, CAB's
1e-4, and CAB keeps the denominator above 0.1. Here the stabilisers are constants that cancel in the
quotient, nothing is added, and nothing is clamped.

CAB leaves causal self attention out: the stabiliser of its keys is the largest logit over all
positions, and matters where something is added. It draws new directions in every training step and
keeps those of evaluation out of the state dict; here they are a buffer, and ``redraw`` says when
they are drawn anew.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from attentions.shared.autocast import without_autocast
from attentions.shared.features import (
    gaussian_directions,
    log_positive_features,
    positive_features,
    work_dtype,
)
from attentions.shared.first_order import first_derivatives_only
from attentions.shared.heads import empty_heads, multiply_heads
from attentions.shared.masks import visible
from attentions.shared.prefix_sums import (
    linear_attention,
    linear_attention_flops,
    safe_divide,
)
from attentions.shared.softmax_means import softmax_means
from cab import (
    Attention,
    AttentionContext,
    AttentionInfo,
    AttentionShape,
    AttentionSpec,
    DecodeState,
    Family,
    Grade,
    Option,
    Pattern,
    register_attention,
)

_NO_MASS = -1e30
"""Logarithm of the mass of no keys: in place of -inf, whose differences are not numbers."""


@register_attention(
    AttentionInfo(
        id="performer",
        family=Family.LINEAR,
        title="Performer (FAVOR+)",
        formula="o_i = phi(q_i) sum_j phi(k_j) v_j^T / phi(q_i)·sum_j phi(k_j), "
        "phi_r(x) = exp(w_r·x - |x|^2 / 2)",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.FAITHFUL,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.FAITHFUL,
            Pattern.CAUSAL_CROSS: Grade.FAITHFUL,
        },
        time="L m D",
        memory="L m",
        paper="Choromanski et al., Rethinking Attention with Performers",
        year=2021,
        url="https://arxiv.org/abs/2009.14794",
        options=(
            Option("features", 64, "m: random features of a head", positive=True),
            Option("orthogonal", True, "directions orthogonal within blocks of D"),
            Option("redraw", 0, "training passes after which directions change; 0: never", least=0),
        ),
        presets={"cab": {"features": 16, "redraw": 1}},
    )
)
class Performer(Attention):
    """Softmax attention estimated with positive orthogonal random features.

    In CAB's preset the directions of a training pass are orthogonal, where CAB's are independent.
    """

    directions: Tensor
    """(H, m, D)"""

    def __init__(
        self, spec: AttentionSpec, features: int = 64, orthogonal: bool = True, redraw: int = 0
    ) -> None:
        super().__init__(spec)
        self.features, self.orthogonal, self.redraw = features, orthogonal, redraw
        self._passes = 0
        self.register_buffer("directions", self._draw())

    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; features and sums are kept in float32 at least."""
        if self.training and self.redraw:
            if self._passes and self._passes % self.redraw == 0:
                self.directions = self._draw().to(self.directions)
            self._passes += 1
        mask = None if context is None else context.key_mask
        if self.pattern is Pattern.CAUSAL_SELF:
            return self._causal(q, k, v, mask).to(v.dtype)
        out: Tensor = _Noncausal.apply(  # type: ignore[no-untyped-call]  # apply is not annotated in torch
            *(x.to(work_dtype(q)) for x in (q, k, v, self.directions)), mask
        )
        return out.to(v.dtype)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """The matrix of estimated exponentials, written out."""
        directions = self.directions.to(q.dtype)
        fq, fk = (log_positive_features(x, directions).exp() for x in (q, k))
        weights = fq @ fk.mT / self.features
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        if mask is not None:
            weights = weights.masked_fill(~mask, 0.0)
        return safe_divide(weights @ v, weights.sum(-1, keepdim=True))

    @without_autocast
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """For every feature, the mean of the values under it, (B, H, m, Dv), and its log mass."""
        work = work_dtype(k)
        empty = k.new_zeros(*k.shape[:2], self.features, v.shape[-1], dtype=work)
        state = DecodeState(0, {"means": empty, "mass": empty.new_full(empty.shape[:3], _NO_MASS)})
        self._absorb(state, k, v, None if context is None else context.key_mask)
        return state

    @without_autocast
    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """Take in the token's key and value, if it has any, and mix the means of the features."""
        if k_t is not None and v_t is not None:
            self._absorb(state, k_t, v_t, None)
        work = work_dtype(q_t)
        logits = log_positive_features(q_t.to(work), self.directions.to(work))
        weights = (logits + state.tensors["mass"][..., None, :]).softmax(-1)
        return (weights @ state.tensors["means"]).to(q_t.dtype), state

    def state_size(self, length: int) -> int:
        """H m (Dv + 1) numbers, whatever the length."""
        return self.spec.heads * self.features * (self.spec.value_dim + 1)

    def flops(self, shape: AttentionShape) -> float:
        """2 B H (Lq + Lk) m (D + Dv + 1), and causally the products within a chunk."""
        rows = shape.batch * shape.heads * (shape.length_q + shape.length_k)
        causal = self.pattern is Pattern.CAUSAL_SELF
        sums = linear_attention_flops(shape, self.features, causal=causal)
        return sums + 2 * rows * self.features * shape.head_dim

    def _draw(self) -> Tensor:
        count, dim = self.features, self.spec.head_dim
        heads = range(self.spec.heads)
        return torch.stack([gaussian_directions(count, dim, self.orthogonal) for _ in heads])

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, work: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Means and sums of weights, causal `linear_attention` of the features in a dtype."""
        fq, fk = positive_features(q.to(work), k.to(work), self.directions.to(work), mask)
        return linear_attention(fq, fk, v.to(work), causal=True)

    def _causal(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Prefix sums in the first dtype that holds them.

        The features are relative to their largest over all keys. That constant cancels, but where
        all keys that a row sees are by far smaller, their features vanish in a short dtype.
        """
        sees = None
        if mask is not None:
            sees = (mask.cumsum(-1) > 0)[:, None, k.shape[-2] - q.shape[-2] :, None]
        for work in dict.fromkeys((work_dtype(q), torch.float64)):
            out, total = self._attend(q, k, v, mask, work)
            limits = torch.finfo(work)
            small = total < limits.tiny / limits.eps**2
            if not (small if sees is None else small & sees).any():
                return out
        return self._token_by_token(q, k, v, mask)

    def _token_by_token(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Causal attention as it is decoded: slow, and right for keys of any norm."""
        lag = k.shape[-2] - q.shape[-2]
        early = AttentionContext(key_mask=None if mask is None else mask[:, :lag])
        state, outputs = self.prefill(k[..., :lag, :], v[..., :lag, :], early), []
        for i in range(q.shape[-2]):
            row, key = slice(i, i + 1), slice(i + lag, i + lag + 1)
            own = None if mask is None else mask[:, key]
            self._absorb(state, k[..., key, :], v[..., key, :], own)
            outputs.append(self.step(q[..., row, :], None, None, state)[0])
        return torch.cat(outputs, dim=-2)

    def _absorb(self, state: DecodeState, k: Tensor, v: Tensor, mask: Tensor | None) -> None:
        """Add keys and values to a state, in logarithms."""
        if k.shape[-2] == 0:
            return
        means, mass = state.tensors["means"], state.tensors["mass"]
        directions = self.directions.to(means.dtype)
        logits = log_positive_features(k.to(means.dtype), directions).mT
        visible_keys = None if mask is None else mask[:, None, None, :]
        own_means, own_mass = softmax_means(logits, v.to(means.dtype), visible_keys)
        own_mass = own_mass.clamp(min=_NO_MASS)
        total = torch.logaddexp(mass, own_mass)
        share = (own_mass - total).exp()[..., None]
        state.tensors = {"means": torch.lerp(means, own_means, share), "mass": total}
        state.length += k.shape[-2]


class _Noncausal(torch.autograd.Function):
    """Directions (H, m, D) get no gradient. Products take the heads as they come and give outputs
    and gradients in the same order: copies would be the larger part of the cost.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, directions: Tensor, mask: Tensor | None
    ) -> Tensor:
        batch, heads, length, width = k.shape
        count = directions.shape[1]
        directions = (directions * width**-0.25).expand(batch, -1, -1, -1)
        logs = k.new_empty(batch, heads, count, length)
        multiply_heads(directions, k.mT, logs)
        logs.sub_(k.square().sum(-1).unsqueeze(-2), alpha=0.5 * width**-0.5)
        if mask is not None:
            logs.masked_fill_(~mask[:, None, None, :], -math.inf)
        top, weights = logs.amax(-1), logs.softmax(-1)
        # The largest weight is exp(top - mass).
        mass = top - weights.amax(-1).log()
        if mask is not None:
            empty = top == -math.inf
            weights.masked_fill_(empty[..., None], 0.0)
            mass.masked_fill_(empty, 0.0)
        means = multiply_heads(weights, v, v.new_empty(batch, heads, count, v.shape[-1]))
        logs = q.new_empty(*q.shape[:3], count)
        p = multiply_heads(q, directions.mT, logs).add_(mass.unsqueeze(-2)).softmax(-1)
        ctx.save_for_backward(k, v, directions, weights, means, p)
        return multiply_heads(p, means, empty_heads(q, v.shape[-1]))

    @staticmethod
    @first_derivatives_only
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        k, v, directions, weights, means, p = ctx.saved_tensors
        g, width = gradients[0], k.shape[-1]
        dmeans = multiply_heads(p.mT, g, torch.empty_like(means))
        dlogs_q = multiply_heads(g, means.mT, torch.empty_like(p))
        dlogs_q.sub_((dlogs_q * p).sum(-1, keepdim=True)).mul_(p)
        dq = multiply_heads(dlogs_q, directions, empty_heads(dlogs_q, width))
        # d mean_r / d a_rj = p_rj (v_j - n_r), d mass_r / d a_rj = p_rj
        own = dlogs_q.sum(-2).sub_((dmeans * means).sum(-1))
        dlogs = multiply_heads(dmeans, v.mT, torch.empty_like(weights))
        dlogs.add_(own.unsqueeze(-1)).mul_(weights)
        dv = multiply_heads(weights.mT, dmeans, empty_heads(v, v.shape[-1]))
        dk = multiply_heads(dlogs.mT, directions, empty_heads(k, width))
        dk.addcmul_(k, dlogs.sum(-2).unsqueeze(-1), value=-(width**-0.5))
        return dq, dk, dv, None, None
