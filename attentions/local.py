"""Local attention: softmax over a sliding window (Luong et al. 2015, arXiv 1508.04025; in CAB).

    noncausal: o_i = softmax attention over keys i - w .. i + w     (2 w + 1 keys)
    causal:    o_i = softmax attention over keys i - w + 1 .. i     (w keys)

i and j are positions: those of the context, or else places in the sequence, so that a masked key
leaves a gap in the window. The window shrinks at the borders of the sequence. CAB's own code lets
out-of-range and padded keys through when a padding mask is given; here they are absent.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.shared.density import share_read
from attentions.shared.exact import exact_softmax_attention
from attentions.shared.masks import visible
from attentions.shared.positions import at_positions, prompt_at_positions
from attentions.shared.windows import windowed_softmax_attention
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


@register_attention(
    AttentionInfo(
        id="local",
        family=Family.WINDOWED,
        title="Local attention (sliding window)",
        formula="o_i = softmax_j(q_i·k_j / sqrt(D)) v_j over |i - j| <= w",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.FAITHFUL,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
        },
        absent={
            Pattern.NONCAUSAL_CROSS: "queries and keys of two sequences have no common positions "
            "to centre a window on",
            Pattern.CAUSAL_CROSS: "queries and keys of two sequences have no common positions "
            "to centre a window on",
        },
        time="L w D",
        memory="L w",
        paper="Luong et al., Effective Approaches to Attention-based Neural Machine Translation",
        year=2015,
        url="https://arxiv.org/abs/1508.04025",
        options=(
            Option(
                "window", 15, "w: keys on each side, or keys in all where causal", positive=True
            ),
        ),
        presets={"cab": {"window": 15}},
    )
)
class LocalAttention(Attention):
    """Softmax over a sliding window of keys."""

    def __init__(self, spec: AttentionSpec, window: int = 15) -> None:
        super().__init__(spec)
        if window < 1:
            raise ValueError(f"window must be at least 1, not {window}")
        self.window = window
        causal = spec.pattern is Pattern.CAUSAL_SELF
        self.before = window - 1 if causal else window
        self.after = 0 if causal else window

    @at_positions
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`."""
        mask = None if context is None else context.key_mask
        return windowed_softmax_attention(q, k, v, mask, before=self.before, after=self.after)

    @at_positions
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Dense softmax under a band mask."""
        length_q, length_k = q.shape[-2], k.shape[-2]
        i = torch.arange(length_q, device=q.device)[:, None] + length_k - length_q
        j = torch.arange(length_k, device=q.device)[None, :]
        band = (j >= i - self.before) & (j <= i + self.after)
        mask = visible(self.pattern, length_q, length_k, context, q.device)
        return exact_softmax_attention(q, k, v, band if mask is None else band & mask)

    @prompt_at_positions
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """The last w - 1 keys, values and key masks."""
        keep = min(self.before, k.shape[-2])
        start = k.shape[-2] - keep
        mask = k.new_ones(k.shape[0], keep, dtype=torch.bool)
        if context is not None and context.key_mask is not None:
            mask = context.key_mask[:, start:]
        tensors = {"k": k[..., start:, :], "v": v[..., start:, :], "mask": mask}
        return DecodeState(k.shape[-2], tensors)

    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """Softmax over the kept keys and the token's own."""
        assert k_t is not None
        assert v_t is not None
        tensors = state.tensors
        k = torch.cat([tensors["k"], k_t], dim=-2)
        v = torch.cat([tensors["v"], v_t], dim=-2)
        mask = torch.cat([tensors["mask"], tensors["mask"].new_ones(k.shape[0], 1)], dim=-1)
        out = exact_softmax_attention(q_t, k, v, mask[:, None, None, :])
        start = k.shape[-2] - min(self.before, k.shape[-2])
        state.tensors = {"k": k[..., start:, :], "v": v[..., start:, :], "mask": mask[:, start:]}
        state.length += 1
        return out, state

    def state_size(self, length: int) -> int:
        """2 H D numbers for each of at most w - 1 tokens."""
        return 2 * self.spec.heads * self.spec.head_dim * min(length, self.before)

    @torch.no_grad()
    def density(self, q: Tensor, k: Tensor, context: AttentionContext | None = None) -> Tensor:
        """(B, H) share of the visible pairs that lie in the window; see `cab.density`."""
        return share_read(self, self._columns_read, q, k, context)

    def _columns_read(self, q: Tensor, k: Tensor, context: AttentionContext) -> Tensor:
        """(B, H) pairs of a valid query and a valid key in its window."""
        length, lag = k.shape[-2], k.shape[-2] - q.shape[-2]
        valid = k.new_ones(k.shape[0], length, dtype=torch.float64)
        if context.key_mask is not None:
            valid = context.key_mask.double()
        before = F.pad(valid.cumsum(-1), (1, 0))
        place = torch.arange(lag, length, device=k.device)
        start = (place - self.before).clamp(min=0)
        end = (place + self.after + 1).clamp(max=length)
        read = before[:, end] - before[:, start]
        if context.query_mask is not None:
            read = read * context.query_mask
        return read.sum(-1, keepdim=True).expand(-1, q.shape[1])

    def flops(self, shape: AttentionShape) -> float:
        """2 B H L (D + Dv) times the width of the window."""
        width = min(self.before + self.after + 1, shape.length_k)
        rows = shape.batch * shape.heads * shape.length_q
        return 2 * rows * width * (shape.head_dim + shape.value_dim)
