"""Retention: a state that every head forgets at a rate of its own (Sun et al. 2023, arXiv
2307.08621).

    S_t = g_h S_(t-1) + k_t v_t^T,   o_t = q_t S_t / sqrt(D),   g_h = 1 - 2^(-5 - h)

in heads h = 0, 1, ..., with queries and keys turned by the angle of their position, and each head
normalised. The gate on outputs is left to the backbone.

The rates count places: a missing token is a step too. In noncausal self attention one scan goes
each way, as `attentions.shared.recurrence` says, so that a value weighs g^|i - j|. A cross slot's
queries have no place in the source, so nothing is turned there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attentions.shared.positions import at_positions, prompt_at_positions
from attentions.shared.recurrence import RecurrentAttention, Writer
from attentions.shared.recurrent_scan import Writes
from attentions.shared.rotary import rotated
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
        id="retnet",
        family=Family.RECURRENT,
        title="Retention (RetNet)",
        formula="o_i = q_i sum_j g^(i-j) k_j v_j^T, q and k turned by their positions, "
        "g = 1 - 2^(-5-h)",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.ADAPTED,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L D^2",
        memory="L D",
        paper="Sun et al., Retentive Network: A Successor to Transformer for Large Language Models",
        year=2023,
        url="https://arxiv.org/abs/2307.08621",
        options=(
            Option("rotary", True, "turn queries and keys by their positions in self attention"),
            Option("norm", True, "RMS normalisation of what each head gives"),
        ),
    )
)
class Retention(RecurrentAttention):
    """Linear attention with a fixed decay for every head."""

    def __init__(self, spec: AttentionSpec, rotary: bool = True, norm: bool = True) -> None:
        super().__init__(spec, norm)
        self.rotary = rotary and not spec.pattern.cross

    def writer(self) -> Writer:
        """See `RecurrentAttention.writer`."""
        heads = torch.arange(self.spec.heads, dtype=torch.float64)
        return FixedDecay(torch.log1p(-torch.exp2(-5 - heads)))

    @at_positions
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least."""
        return super().forward(*self._turned(q, k), v, context)

    @at_positions
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Token by token."""
        return super().reference(*self._turned(q, k), v, context)

    @prompt_at_positions
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """See `RecurrentAttention.prefill`."""
        return super().prefill(self._turned(k, k)[1], v, context)

    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """See `RecurrentAttention.step`."""
        if k_t is not None:
            q_t, k_t = self._turned(q_t, k_t, state.length)
        return super().step(q_t, k_t, v_t, state)

    def _turned(self, q: Tensor, k: Tensor, first: int = 0) -> tuple[Tensor, Tensor]:
        """Queries, which are the last of the keys, and keys from position ``first`` on."""
        if not self.rotary:
            return q, k
        positions = torch.arange(first, first + k.shape[-2], device=k.device)
        wide = torch.promote_types(k.dtype, torch.float32)
        rows = positions[k.shape[-2] - q.shape[-2] :]
        return rotated(q.to(wide), rows).to(q.dtype), rotated(k.to(wide), positions).to(k.dtype)


class FixedDecay(Writer):
    """Keys and values as they are, under a rate of each head."""

    counts_places = True

    def __init__(self, logarithms: Tensor) -> None:
        super().__init__()
        self.register_buffer("rate", logarithms[:, None, None])
        self.rate: Tensor

    def forward(self, k: Tensor, v: Tensor, context: AttentionContext | None) -> Writes:
        """See `Writer.forward`."""
        return Writes(k, v, self.rate.to(k.dtype).expand(*k.shape[:3], 1))
