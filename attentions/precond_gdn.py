"""Preconditioned Gated DeltaNet: writes are scaled by what their channels have seen (Tumma et al.
2026, arXiv 2604.21100).

    C_t = exp(g'_t) C_(t-1) + beta'_t k_t^2
    M_t = 1.5^(-r / (1 + |r|)),   r = ln(C_t + 1e-6) - m
    S_t = S' + beta_t (M_t ∘ k_t) (v_t - S'^T k_t)^T,   S' = a_t S_(t-1),   o_t = q_t S_t / sqrt(D)

with gates a and beta as in `gated-deltanet`, g' and beta' likewise with weights of their own, and m
a number of a head that begins at -0.2: a channel that keys have used much is written to less, as a
diagonal preconditioner of the online regression would. M lies in (2/3, 3/2). With M = 1 it is
`gated-deltanet`.

`attentions.shared.delta_rule` says what is left to a slot or backbone,
`attentions.shared.recurrence` how the patterns follow; each direction counts its own C.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from attentions.shared.autocast import without_autocast
from attentions.shared.decayed_scan import decayed_scan
from attentions.shared.delta_rule import DeltaRule, DeltaWriter
from attentions.shared.gates import Gate, SoftplusDecay, undecayed_parameters
from attentions.shared.layer_inputs import key_input
from attentions.shared.recurrent_scan import Writes, recurrent_step
from cab import (
    AttentionContext,
    AttentionInfo,
    AttentionSpec,
    DecodeState,
    Family,
    Grade,
    Option,
    Pattern,
    register_attention,
)

_RANGE, _CENTRE, _EPS = 1.5, -0.2, 1e-6


@register_attention(
    AttentionInfo(
        id="precond-gdn",
        family=Family.RECURRENT,
        title="Preconditioned Gated DeltaNet",
        formula="S_i = a_i S_(i-1) + β_i (M_i ∘ k_i) (v_i - a_i S_(i-1)^T k_i)^T, "
        "M of decayed sums of k^2, o_i = q_i S_i",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.ADAPTED,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L D^2",
        memory="L D",
        paper="Tumma et al., Preconditioned DeltaNet: Curvature-aware Sequence Modeling for "
        "Linear Recurrences",
        year=2026,
        url="https://arxiv.org/abs/2604.21100",
        options=(
            Option("negative", False, "let beta reach 2: eigenvalues down to -1"),
            Option("norm", True, "RMS normalisation of what each head gives"),
        ),
    )
)
class PreconditionedDeltaNet(DeltaRule):
    """A delta rule whose step is smaller in channels that are in much use."""

    def __init__(self, spec: AttentionSpec, negative: bool = False, norm: bool = True) -> None:
        self.negative = negative
        super().__init__(spec, norm)
        if len(self.writers) > 1:
            self.writers[1].backwards = True

    def writer(self) -> DeltaWriter:
        """See `RecurrentAttention.writer`."""
        return _Writer(self.spec, self.negative)

    @without_autocast
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """See `RecurrentAttention.prefill`; and ``use`` (B, H, D), C of the last token."""
        state = super().prefill(k, v, context)
        wide = k.to(torch.promote_types(k.dtype, torch.float32))
        use = self.writers[0].use(wide, v.to(wide.dtype), context)
        none = wide.new_zeros(*k.shape[:2], 1, k.shape[-1])
        state.tensors["use"] = torch.cat([none, use], dim=-2)[..., -1, :]
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
        """See `RecurrentAttention.step`."""
        if k_t is None or v_t is None:
            return super().step(q_t, None, None, state, context)
        dtype = q_t.dtype
        q_t, k_t, v_t = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (q_t, k_t, v_t))
        writer, tensors = self.writers[0], state.tensors
        writes, use = writer.with_use(k_t, v_t, context, tensors["use"])
        tensors["state"] = recurrent_step(tensors["state"], writes)
        tensors["use"] = use[..., -1, :]
        state.length += 1
        return self.finished(self.reading(q_t, k_t) @ tensors["state"], None).to(dtype), state

    def state_size(self, length: int) -> int:
        """H D (Dv + 1) numbers, whatever the length."""
        return super().state_size(length) + self.spec.heads * self.spec.head_dim

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Rates, first steps and m are not decayed, as the authors train them."""
        groups = undecayed_parameters(self)
        groups[0]["params"].extend(writer.centre for writer in self.writers)
        return groups


class _Writer(DeltaWriter):
    def __init__(self, spec: AttentionSpec, negative: bool) -> None:
        super().__init__(spec, "precond-gdn", SoftplusDecay(spec), negative)
        self.use_decay, self.use_beta = SoftplusDecay(spec), Gate(spec)
        self.centre = nn.Parameter(torch.full((spec.heads,), _CENTRE))
        self.backwards = False

    def forward(self, k: Tensor, v: Tensor, context: AttentionContext | None) -> Writes:
        return self.with_use(k, v, context)[0]

    def use(self, k: Tensor, v: Tensor, context: AttentionContext | None) -> Tensor:
        """C of every token, (B, H, L, D)."""
        return self.with_use(k, v, context)[1]

    def with_use(
        self,
        k: Tensor,
        v: Tensor,
        context: AttentionContext | None,
        before: Tensor | None = None,
    ) -> tuple[Writes, Tensor]:
        """Writes, and C (B, H, L, D) from ``before`` (B, H, D) on."""
        writes = super().forward(k, v, context)
        x = key_input(context, self.name, "gates")
        decay, added = self.use_decay(x).to(k.dtype), self.use_beta(x) * writes.keys.square()
        mask = None if context is None else context.key_mask
        if mask is not None:
            gone = ~mask[:, None, :, None]
            decay, added = decay.masked_fill(gone, 0.0), added.masked_fill(gone, 0.0)
        decay, added = (y.flatten(0, 1) for y in (decay.exp(), added))
        if self.backwards:
            decay, added = decay.flip(1), added.flip(1)
        initial = None if before is None else before.flatten(0, 1)
        use = decayed_scan(decay, added, initial)
        use = (use.flip(1) if self.backwards else use).unflatten(0, k.shape[:2])
        ratio = (use + _EPS).log() - self.centre.to(k.dtype)[:, None, None]
        scale = (-math.log(_RANGE) * ratio / (1 + ratio.abs())).exp()
        return replace(writes, keys=scale * writes.keys), use
