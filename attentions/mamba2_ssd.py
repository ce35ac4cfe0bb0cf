"""Mamba-2's state-space dual as attention: a state that fades by the step that it takes (Dao and Gu
2024, arXiv 2405.21060).

    S_t = exp(-Δ_t e^A) S_(t-1) + Δ_t k_t v_t^T,   Δ_t = softplus(w·x_t + b)
    o_t = q_t S_t + d v_t

with keys for B, queries for C, values for X, A and d numbers of a head.
Queries, keys and values pass SiLU, and what a head gives is RMS-normalised. The short convolution
before, and the gate beside the normalisation, are a slot's or backbone's matter here.

Cross slots have no own value, and so no d. `attentions.shared.recurrence` says how the patterns
follow.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.shared.gates import SoftplusDecay, undecayed_parameters
from attentions.shared.layer_inputs import key_input
from attentions.shared.recurrence import OwnTokens, RecurrentAttention, Writer
from attentions.shared.recurrent_scan import Writes
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


@register_attention(
    AttentionInfo(
        id="mamba2-ssd",
        family=Family.RECURRENT,
        title="Mamba-2 (state-space dual)",
        formula="S_i = exp(-Δ_i e^A) S_(i-1) + Δ_i k_i v_i^T, o_i = q_i S_i + d v_i",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.ADAPTED,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L D^2",
        memory="L D",
        paper="Dao and Gu, Transformers are SSMs: Generalized Models and Efficient Algorithms "
        "Through Structured State Space Duality",
        year=2024,
        url="https://arxiv.org/abs/2405.21060",
        options=(Option("norm", True, "RMS normalisation of what each head gives"),),
    )
)
class Mamba2(RecurrentAttention):
    """Linear attention whose state fades head by head, by steps that its tokens take."""

    def __init__(self, spec: AttentionSpec, norm: bool = True) -> None:
        super().__init__(spec, norm)
        if not spec.pattern.cross:
            self.skip = nn.Parameter(torch.ones(spec.heads))

    def writer(self) -> Writer:
        """See `RecurrentAttention.writer`."""
        return _Writer(self.spec)

    def reading(self, q: Tensor, k: Tensor | None) -> Tensor:
        """See `RecurrentAttention.reading`."""
        return F.silu(q)

    def finished(self, out: Tensor, own: OwnTokens | None) -> Tensor:
        """With the token's own value, normalised."""
        if own is not None:
            out = out + self.skip.to(out.dtype)[:, None, None] * F.silu(own.v)
        return super().finished(out, own)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Rates, first steps and d are not decayed, as their authors train them."""
        groups = undecayed_parameters(self)
        if not self.pattern.cross:
            groups[0]["params"].append(self.skip)
        return groups


class _Writer(Writer):
    def __init__(self, spec: AttentionSpec) -> None:
        super().__init__()
        self.decay = SoftplusDecay(spec)

    def forward(self, k: Tensor, v: Tensor, context: AttentionContext | None) -> Writes:
        steps = self.decay.steps(key_input(context, "mamba2-ssd", "steps")).to(v.dtype)
        return Writes(F.silu(k), steps * F.silu(v), self.decay.decay(steps))

    def flops(self, shape: AttentionShape) -> float:
        weights = sum(x.numel() for x in self.parameters() if x.ndim == 2)
        return 2.0 * shape.batch * shape.length_k * weights
