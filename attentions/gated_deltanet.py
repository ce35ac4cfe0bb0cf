"""Gated DeltaNet: a delta rule whose state fades (Yang, Kautz and Hatamizadeh 2024, arXiv
2412.06464).

    S_t = a_t S_(t-1) + beta_t k_t (v_t - a_t S_(t-1)^T k_t)^T,   o_t = q_t S_t / sqrt(D)

with a_t = exp(-e^A softplus(w·x_t + b)), one number a head, and beta = sigmoid(w'·x_t) (the gate is
Mamba-2's). With a = 1 it is `deltanet`. `attentions.shared.delta_rule` says what is left to a slot
or backbone, `attentions.shared.recurrence` how the patterns follow.
"""

from __future__ import annotations

from attentions.shared.delta_rule import DeltaRule, DeltaWriter
from attentions.shared.gates import SoftplusDecay
from cab import (
    AttentionInfo,
    AttentionSpec,
    Family,
    Grade,
    Option,
    Pattern,
    register_attention,
)


@register_attention(
    AttentionInfo(
        id="gated-deltanet",
        family=Family.RECURRENT,
        title="Gated DeltaNet",
        formula="S_i = a_i S_(i-1) + β_i k_i (v_i - a_i S_(i-1)^T k_i)^T, o_i = q_i S_i",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.ADAPTED,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L D^2",
        memory="L D",
        paper="Yang et al., Gated Delta Networks: Improving Mamba2 with Delta Rule",
        year=2025,
        url="https://arxiv.org/abs/2412.06464",
        options=(
            Option("negative", False, "let beta reach 2: eigenvalues down to -1"),
            Option("norm", True, "RMS normalisation of what each head gives"),
        ),
    )
)
class GatedDeltaNet(DeltaRule):
    """A state whose values are corrected, and fade all at one rate."""

    def __init__(self, spec: AttentionSpec, negative: bool = False, norm: bool = True) -> None:
        self.negative = negative
        super().__init__(spec, norm)

    def writer(self) -> DeltaWriter:
        """See `RecurrentAttention.writer`."""
        decay = SoftplusDecay(self.spec)
        return DeltaWriter(self.spec, "gated-deltanet", decay, self.negative)
