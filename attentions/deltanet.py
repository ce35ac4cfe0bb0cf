"""The delta rule with the step that a token asks for (Yang et al. 2024, arXiv 2406.06484).

    S_t = S_(t-1) + beta_t k_t (v_t - S_(t-1)^T k_t)^T,   o_t = q_t S_t / sqrt(D)

with beta = sigmoid(w·x), queries and keys of length one after SiLU (Schlag et al.
2021, arXiv 2102.11174). `attentions.shared.delta_rule` says what is left to a slot or backbone,
`attentions.shared.recurrence` how the patterns follow.
"""

from __future__ import annotations

from attentions.shared.delta_rule import DeltaRule, DeltaWriter
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
        id="deltanet",
        family=Family.RECURRENT,
        title="DeltaNet (delta rule)",
        formula="S_i = S_(i-1) + β_i k_i (v_i - S_(i-1)^T k_i)^T, o_i = q_i S_i",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.ADAPTED,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L D^2",
        memory="L D",
        paper="Yang et al., Parallelizing Linear Transformers with the Delta Rule over "
        "Sequence Length",
        year=2024,
        url="https://arxiv.org/abs/2406.06484",
        options=(
            Option("negative", False, "let beta reach 2: eigenvalues down to -1"),
            Option("norm", True, "RMS normalisation of what each head gives"),
        ),
    )
)
class DeltaNet(DeltaRule):
    """A state whose values are corrected, and never fade by themselves."""

    def __init__(self, spec: AttentionSpec, negative: bool = False, norm: bool = True) -> None:
        self.negative = negative
        super().__init__(spec, norm)

    def writer(self) -> DeltaWriter:
        """See `RecurrentAttention.writer`."""
        return DeltaWriter(self.spec, "deltanet", None, self.negative)
