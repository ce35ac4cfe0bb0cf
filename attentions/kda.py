"""Kimi Delta Attention: a delta rule whose channels fade by themselves (Kimi Team 2025, arXiv
2510.26692).

    S_t = S' + beta_t k_t (v_t - S'^T k_t)^T,   S' = diag(a_t) S_(t-1),   o_t = q_t S_t / sqrt(D)

with a_t = exp(-e^A softplus(W2 W1 x_t + b)) in (0, 1)^D, W1 of as many numbers as a head has, and
beta = sigmoid(w·x_t). With the same a in all channels it is `gated-deltanet`.
`attentions.shared.delta_rule` says what is left to a slot or backbone,
`attentions.shared.recurrence` how the patterns follow.
"""

from __future__ import annotations

from attentions.shared.delta_rule import DeltaRule, DeltaWriter
from attentions.shared.gates import SoftplusDecay
from attentions.shared.recurrent_scan import ScanCosts
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
        id="kda",
        family=Family.RECURRENT,
        title="Kimi Delta Attention",
        formula="S_i = D_i S_(i-1) + β_i k_i (v_i - (D_i S_(i-1))^T k_i)^T, D = diag(a), "
        "o_i = q_i S_i",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.ADAPTED,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L D^2",
        memory="L D",
        paper="Kimi Team, Kimi Linear: An Expressive, Efficient Attention Architecture",
        year=2025,
        url="https://arxiv.org/abs/2510.26692",
        options=(
            Option("negative", False, "let beta reach 2: eigenvalues down to -1"),
            Option("norm", True, "RMS normalisation of what each head gives"),
        ),
    )
)
class KimiDeltaAttention(DeltaRule):
    """A state whose values are corrected, and fade at a rate of each channel of the keys."""

    costs = ScanCosts(erases=True, by_channel=True)

    def __init__(self, spec: AttentionSpec, negative: bool = False, norm: bool = True) -> None:
        self.negative = negative
        super().__init__(spec, norm)

    def writer(self) -> DeltaWriter:
        """See `RecurrentAttention.writer`."""
        decay = SoftplusDecay(self.spec, channels=self.spec.head_dim, rank=self.spec.value_dim)
        return DeltaWriter(self.spec, "kda", decay, self.negative)
