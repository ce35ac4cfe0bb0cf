"""Lightning attention: linear attention with a fixed decay, block by block (Qin et al. 2024, arXiv
2401.04658; in MiniMax-01, arXiv 2501.08313).

    S_t = g S_(t-1) + k_t v_t^T,   o_t = q_t S_t
    g = exp(-2^(-8 (h + 1) / H) (1 - l / (L - 1) + 1e-5))

in head h = 0 .. H - 1 of layer l = 0 .. L - 1: the slopes of ALiBi, and later layers forget more
slowly. Queries, keys and values pass SiLU; each head is RMS-normalised, where the authors normalise
all of them together and put a gate beside. The name is that of the algorithm, whose blocks are what
`attentions.shared.recurrent_scan` does.

The rates count places: a missing token is a step too. `attentions.shared.recurrence` says how the
patterns follow.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.retnet import FixedDecay
from attentions.shared.positions import at_positions, prompt_at_positions
from attentions.shared.recurrence import RecurrentAttention, Writer
from attentions.shared.recurrent_scan import Writes
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


@register_attention(
    AttentionInfo(
        id="lightning",
        family=Family.RECURRENT,
        title="Lightning attention",
        formula="o_i = q_i sum_j g^(i-j) k_j v_j^T, g = exp(-slope of head and layer), "
        "q, k, v after SiLU",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.ADAPTED,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L D^2",
        memory="L D",
        paper="Qin et al., Lightning Attention-2: A Free Lunch for Handling Unlimited Sequence "
        "Lengths in Large Language Models",
        year=2024,
        url="https://arxiv.org/abs/2401.04658",
        options=(Option("norm", True, "RMS normalisation of what each head gives"),),
    )
)
class LightningAttention(RecurrentAttention):
    """Linear attention whose heads and layers forget at slopes that are set beforehand."""

    def __init__(self, spec: AttentionSpec, norm: bool = True) -> None:
        super().__init__(spec, norm)

    def writer(self) -> Writer:
        """See `RecurrentAttention.writer`."""
        heads = torch.arange(1, self.spec.heads + 1, dtype=torch.float64)
        layer = 1 - self.spec.layer_index / max(1, self.spec.layers - 1) + 1e-5
        return _Writer(-torch.exp2(-8 * heads / self.spec.heads) * layer)

    def reading(self, q: Tensor, k: Tensor | None) -> Tensor:
        """See `RecurrentAttention.reading`."""
        return F.silu(q)

    @at_positions
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least."""
        return super().forward(q, k, v, context)

    @at_positions
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Token by token."""
        return super().reference(q, k, v, context)

    @prompt_at_positions
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """See `RecurrentAttention.prefill`."""
        return super().prefill(k, v, context)


class _Writer(FixedDecay):
    def forward(self, k: Tensor, v: Tensor, context: AttentionContext | None) -> Writes:
        return super().forward(F.silu(k), F.silu(v), context)
