"""Longhorn: the step of a delta rule that solves its regression at once (Liu et al. 2024, arXiv
2407.14207).

    S_t = argmin_S |S - S_(t-1)|^2 + d_t |v_t - S^T k_t|^2
        = S_(t-1) + b_t k_t (v_t - S_(t-1)^T k_t)^T,   b_t = d_t / (1 + d_t |k_t|^2)
    o_t = q_t S_t / sqrt(D)

with d_t = sigmoid(w·x_t), a number of a head. However long keys are the step
never overshoots, so they need not be of length one, and nothing has to be forgotten by a gate.

Adapted: the paper's d has a number for each channel of the values, and its recurrence keeps only
the diagonal of k k^T, to be a scan of single numbers. Here the solution is exact, and d one
number, with which chunks of tokens are products of matrices. Queries, keys and values pass SiLU,
and heads are RMS-normalised, as in `deltanet`. `attentions.shared.recurrence` says how the patterns
follow.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from attentions.shared.delta_rule import DeltaRule, DeltaWriter
from attentions.shared.layer_inputs import key_input
from attentions.shared.recurrent_scan import Writes
from cab import (
    AttentionContext,
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
        id="longhorn",
        family=Family.RECURRENT,
        title="Longhorn (implicit delta rule)",
        formula="S_i = S_(i-1) + b_i k_i (v_i - S_(i-1)^T k_i)^T, b = d / (1 + d |k|^2), "
        "o_i = q_i S_i",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.ADAPTED,
            Pattern.CAUSAL_SELF: Grade.ADAPTED,
            Pattern.NONCAUSAL_CROSS: Grade.ADAPTED,
            Pattern.CAUSAL_CROSS: Grade.ADAPTED,
        },
        time="L D^2",
        memory="L D",
        paper="Liu et al., Longhorn: State Space Models are Amortized Online Learners",
        year=2024,
        url="https://arxiv.org/abs/2407.14207",
        options=(Option("norm", True, "RMS normalisation of what each head gives"),),
    )
)
class Longhorn(DeltaRule):
    """A delta rule with keys of any length, and the step that fits each of them."""

    def __init__(self, spec: AttentionSpec, norm: bool = True) -> None:
        super().__init__(spec, norm)

    def writer(self) -> DeltaWriter:
        """See `RecurrentAttention.writer`."""
        return _Writer(self.spec, "longhorn", None, negative=False)

    def reading(self, q: Tensor, k: Tensor | None) -> Tensor:
        """See `RecurrentAttention.reading`."""
        return F.silu(q) * q.shape[-1] ** -0.5


class _Writer(DeltaWriter):
    def forward(self, k: Tensor, v: Tensor, context: AttentionContext | None) -> Writes:
        d = self.beta(key_input(context, self.name, "steps")).to(v.dtype)
        k, v = F.silu(k), F.silu(v)
        step = d / (1 + d * k.square().sum(-1, keepdim=True))
        return Writes(k, step * v, None, step * k)
