"""Comba: a delta rule with a feedback of its own strength, and one at the output (Hu et al. 2025,
arXiv 2506.02475).

    S_t = a_t S_(t-1) + beta_t k_t (v_t - a_t S_(t-1)^T p_t)^T,   o_t = (q_t - d p_t) S_t / sqrt(D)

with p = sigmoid(c) k, where c and d are numbers of a head that begin at 1, and gates a and beta as
in `gated-deltanet`, which it is with p = k and d = 0. As in the authors'
layer q - d p, of queries and keys after SiLU, is brought to length one. Its kernel does the same to
p, which takes the factor sigmoid(c) away again; here p stays shorter than k, as in the paper.

In noncausal self attention p of a query is that of the first direction. A cross slot's queries
stand at no key, so there is no d. `attentions.shared.delta_rule` says what is left to a slot or
backbone, `attentions.shared.recurrence` how the patterns follow.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.shared.delta_rule import DeltaRule, DeltaWriter, unit
from attentions.shared.gates import SoftplusDecay
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
        id="comba",
        family=Family.RECURRENT,
        title="Comba",
        formula="S_i = a_i S_(i-1) + β_i k_i (v_i - a_i S_(i-1)^T p_i)^T, p = s k, "
        "o_i = (q_i - d p_i) S_i",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.ADAPTED,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L D^2",
        memory="L D",
        paper="Hu et al., Comba: Improving Bilinear RNNs with Closed-loop Control",
        year=2025,
        url="https://arxiv.org/abs/2506.02475",
        options=(Option("norm", True, "RMS normalisation of what each head gives"),),
    )
)
class Comba(DeltaRule):
    """A state that fades, and is corrected by less than what it holds."""

    def __init__(self, spec: AttentionSpec, norm: bool = True) -> None:
        super().__init__(spec, norm)
        if not spec.pattern.cross:
            self.feedback = nn.Parameter(torch.ones(spec.heads))

    def writer(self) -> DeltaWriter:
        """See `RecurrentAttention.writer`."""
        return _Writer(self.spec)

    def reading(self, q: Tensor, k: Tensor | None) -> Tensor:
        """Q - d p, of length 1 / sqrt(D)."""
        if k is None:
            return super().reading(q, k)
        of_keys = self.feedback.to(k.dtype)[:, None, None] * self.writers[0].share(k.dtype)
        return unit(F.silu(q) - of_keys * F.silu(k)) * q.shape[-1] ** -0.5


class _Writer(DeltaWriter):
    def __init__(self, spec: AttentionSpec) -> None:
        super().__init__(spec, "comba", SoftplusDecay(spec), negative=False)
        self.shorter = nn.Parameter(torch.ones(spec.heads))

    def share(self, dtype: torch.dtype) -> Tensor:
        """sigmoid(c), (H, 1, 1)."""
        return self.shorter.to(dtype).sigmoid()[:, None, None]

    def forward(self, k: Tensor, v: Tensor, context: AttentionContext | None) -> Writes:
        writes = super().forward(k, v, context)
        assert writes.erase is not None
        return replace(writes, erase=self.share(k.dtype) * writes.erase)
