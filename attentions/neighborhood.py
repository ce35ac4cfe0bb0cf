"""Neighbourhood attention: every query sees its w nearest keys, as many at the borders as inside.

Hassani, Hwu, Shi 2024, arXiv 2403.04690, with the semantics of NATTEN's one-dimensional operator;
dilation: arXiv 2209.15001; stride: arXiv 2504.16922. With dilation δ, positions are split into δ
groups g = i mod δ of n = ceil((L - g) / δ) tokens, and c = floor(i / δ) is the coordinate in the
group. With stride s, queries in segments of s share the window of a leader l:

    noncausal: l = min(floor(c / s) s + floor(s / 2), n - 1)
               o_i = softmax attention over coordinates l - floor(w / 2) .. + w - 1, moved inward to
               lie in 0 .. n - 1
    causal:    l = floor(c / s) s + s - 1
               o_i = softmax attention over coordinates max(l - w + 1, 0) .. c

This is not `local`, whose noncausal window shrinks at both borders; the causal window shrinks at
the beginning here too, and is that of `local` for δ = s = 1.

What differs from NATTEN:

* its causal leader is min(l, n - 1), which makes the outputs of the last segment depend on how many
  tokens follow; here it does not;
* it refuses w δ > L; here a query sees all of a group that has no more than w tokens;
* it has no masks. Windows are laid over positions, masked tokens counted, and L is the position
  after the last valid token of the row, so that padding behind it moves no window.

The relative position bias of the first version (arXiv 2204.07143), which the fused operators
dropped, is not here.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.shared.block_sparse import block_sparse_attention
from attentions.shared.block_tiles import BlockLists
from attentions.shared.density import PartialReads
from attentions.shared.exact import exact_softmax_attention
from attentions.shared.inward_windows import inward_window_attention, window_bounds
from attentions.shared.masks import hidden_as_bias, not_later, valid_lengths, visible
from attentions.shared.positions import at_positions, prompt_at_positions
from attentions.shared.windows import windowed_softmax_attention
from cab import (
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

_NO_CROSS = "positions of two sequences cannot be compared, so a query has no neighbourhood there"


@register_attention(
    AttentionInfo(
        id="neighborhood",
        family=Family.WINDOWED,
        title="Neighbourhood attention (NATTEN)",
        formula="o_i = softmax_j(q_i·k_j / sqrt(D)) v_j over the w keys nearest to i, as many at "
        "the borders; causal over i - w < j <= i",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.FAITHFUL,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
        },
        absent={Pattern.NONCAUSAL_CROSS: _NO_CROSS, Pattern.CAUSAL_CROSS: _NO_CROSS},
        time="L w D",
        memory="L w",
        paper="Hassani et al., Faster Neighborhood Attention: Reducing the O(n^2) Cost of Self "
        "Attention at the Threadblock Level",
        year=2024,
        url="https://arxiv.org/abs/2403.04690",
        options=(
            Option("window", 31, "w: keys that a query sees", positive=True),
            Option("dilation", 1, "δ: every δ-th token is a neighbour", positive=True),
            Option("stride", 1, "s: queries that share a window; at most w", positive=True),
            Option("alternate", False, "dilate every second layer only"),
        ),
        presets={"dina": {"dilation": 4, "alternate": True}},
    )
)
class NeighborhoodAttention(PartialReads):
    """Softmax over the w nearest keys."""

    def __init__(
        self,
        spec: AttentionSpec,
        window: int = 31,
        dilation: int = 1,
        stride: int = 1,
        alternate: bool = False,
    ) -> None:
        super().__init__(spec)
        if stride > window:
            raise ValueError(f"a stride of {stride} is larger than the window of {window} keys")
        self.window, self.stride = window, stride
        self.dilation = 1 if alternate and spec.layer_index % 2 == 0 else dilation
        self.causal = spec.pattern is Pattern.CAUSAL_SELF
        self.left, self.right = window // 2, (window - 1) // 2

    @at_positions
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`."""
        mask = None if context is None else context.key_mask
        length_q, lag = q.shape[-2], k.shape[-2] - q.shape[-2]
        if lag:
            # Whole segments before those that the first query's window reaches are not needed.
            start = max(0, lag // self.dilation - self.window - self.stride)
            start = start // self.stride * self.stride * self.dilation
            k, v = k[:, :, start:], v[:, :, start:]
            mask = None if mask is None else mask[:, start:]
            q = F.pad(q, (0, 0, lag - start, 0))
        if self.dilation == 1:
            lengths = None if mask is None or self.causal else valid_lengths(mask)
            return self._attend(q, k, v, mask, lengths)[:, :, q.shape[-2] - length_q :]
        lengths = None if self.causal else self._group_lengths(mask, k)
        if mask is None and k.shape[-2] % self.dilation and not self.causal:
            mask = k.new_ones(k.shape[0], k.shape[-2], dtype=torch.bool)
        grouped = None if mask is None else self._grouped_mask(mask)
        queries, keys, values = (self._grouped(x) for x in (q, k, v))
        out = self._attend(queries, keys, values, grouped, lengths)
        out = out.unflatten(0, (-1, self.dilation)).permute(0, 2, 3, 1, 4).flatten(2, 3)
        return out[:, :, q.shape[-2] - length_q : q.shape[-2]]

    @at_positions
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Dense softmax under a mask, from NATTEN's rule for the first key of a window."""
        length_q, length = q.shape[-2], k.shape[-2]
        w, s, left, right = self.window, self.stride, self.left, self.right
        i = torch.arange(length_q, device=q.device)[:, None] + length - length_q
        j = torch.arange(length, device=q.device)
        group, c = i % self.dilation, i // self.dilation
        if self.causal:
            start = (c // s * s + s - w).clamp(min=0)
            window = (j // self.dilation >= start) & (j // self.dilation <= c)
        else:
            end = torch.full((q.shape[0],), length, device=q.device)
            if context is not None and context.key_mask is not None:
                end = (context.key_mask * (j + 1)).amax(-1)
            n = (end[:, None, None] - group + self.dilation - 1) // self.dilation
            leader = torch.minimum(c // s * s + s // 2, n - 1)
            start = (leader - left).clamp(min=0)
            start = start + (leader + right >= n) * (n - right - leader - 1)
            window = (j // self.dilation >= start) & (j // self.dilation < start + w) | (n <= w)
            window = (window & (c < n))[:, None]
        sees = window & (j % self.dilation == group)
        mask = visible(self.pattern, length_q, length, context, q.device)
        return exact_softmax_attention(q, k, v, sees if mask is None else sees & mask)

    @prompt_at_positions
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """The last (w - 1) δ keys, values and key masks."""
        start = max(0, k.shape[-2] - self._kept)
        mask = k.new_ones(k.shape[0], k.shape[-2], dtype=torch.bool)
        if context is not None and context.key_mask is not None:
            mask = context.key_mask
        tensors = {"k": k[:, :, start:], "v": v[:, :, start:], "mask": mask[:, start:]}
        return DecodeState(k.shape[-2], tensors)

    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """Softmax over the kept keys of the token's group and its own."""
        assert k_t is not None
        assert v_t is not None
        tensors = state.tensors
        k = torch.cat([tensors["k"], k_t], dim=-2)
        v = torch.cat([tensors["v"], v_t], dim=-2)
        mask = torch.cat([tensors["mask"], tensors["mask"].new_ones(k.shape[0], 1)], dim=-1)
        # Steps back within the group that the leader's window reaches.
        c = state.length // self.dilation
        back = c - max(c // self.stride * self.stride + self.stride - self.window, 0)
        last = k.shape[-2] - 1
        own = slice(last - min(back, last // self.dilation) * self.dilation, None, self.dilation)
        out = exact_softmax_attention(q_t, k[:, :, own], v[:, :, own], mask[:, None, None, own])
        start = max(0, k.shape[-2] - self._kept)
        state.tensors = {"k": k[:, :, start:], "v": v[:, :, start:], "mask": mask[:, start:]}
        state.length += 1
        return out, state

    def state_size(self, length: int) -> int:
        """2 H D numbers for each of at most (w - 1) δ tokens."""
        return 2 * self.spec.heads * self.spec.head_dim * min(length, self._kept)

    def columns_read(self, q: Tensor, k: Tensor, context: AttentionContext) -> Tensor:
        """See `PartialReads.columns_read`."""
        lag = k.shape[-2] - q.shape[-2]
        keys = k.new_ones(k.shape[0], k.shape[-2], dtype=torch.bool)
        if context.key_mask is not None:
            keys = context.key_mask
        queries = keys.new_ones(q.shape[0], q.shape[-2])
        if context.query_mask is not None:
            queries = context.query_mask
        queries = self._grouped_mask(F.pad(queries, (lag, 0)))
        grouped = self._grouped_mask(keys)
        count = grouped.shape[1]
        if self.causal:
            c = torch.arange(count, device=k.device)
            start = (c // self.stride * self.stride + self.stride - self.window).clamp(min=0)
            start, end = (x.expand(len(grouped), -1) for x in (start, c + 1))
        else:
            lengths = self._group_lengths(context.key_mask, k)
            start, end = window_bounds(
                lengths, count, left=self.left, right=self.right, stride=self.stride
            )
        before = F.pad(grouped.double().cumsum(-1), (1, 0))
        read = (before.gather(1, end) - before.gather(1, start)) * queries
        return read.sum(-1).view(-1, self.dilation).sum(-1, keepdim=True).expand(-1, q.shape[1])

    def flops(self, shape: AttentionShape) -> float:
        """2 B H L (D + Dv) times the width of the window."""
        width = min(self.window, -(-shape.length_k // self.dilation))
        rows = shape.batch * shape.heads * shape.length_q
        return 2.0 * rows * width * (shape.head_dim + shape.value_dim)

    @property
    def _kept(self) -> int:
        """Tokens before its own that a token may read, and those between them."""
        return (self.window - 1) * self.dilation

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, lengths: Tensor | None
    ) -> Tensor:
        """Without dilation: (B, H, n, D) tokens of one group each."""
        if not self.causal:
            return inward_window_attention(
                q, k, v, mask, lengths, left=self.left, right=self.right, stride=self.stride
            )
        if self.stride == 1:
            return windowed_softmax_attention(q, k, v, mask, before=self.window - 1, after=0)
        length, s = k.shape[-2], self.stride
        first = torch.arange(0, length, s, device=k.device)[:, None]
        width = min(self.window, length + s)
        listed = first + torch.arange(s - width, s, device=k.device)
        listed = listed.masked_fill((listed < 0) | (listed >= length), -1).sort(-1).values
        lists = BlockLists(listed[None, None], s, 1, partial=s, sees=not_later)
        return block_sparse_attention(q, k, v, lists, bias=hidden_as_bias(mask, q))

    def _grouped(self, x: Tensor) -> Tensor:
        """(B δ, H, n, D) of tokens (B, H, L, D), zeros where a group is shorter."""
        x = F.pad(x, (0, 0, 0, -x.shape[2] % self.dilation))
        return x.unflatten(2, (-1, self.dilation)).permute(0, 3, 1, 2, 4).flatten(0, 1)

    def _grouped_mask(self, mask: Tensor) -> Tensor:
        """(B δ, n) of (B, L)."""
        mask = F.pad(mask, (0, -mask.shape[1] % self.dilation))
        return mask.unflatten(1, (-1, self.dilation)).transpose(1, 2).flatten(0, 1)

    def _group_lengths(self, mask: Tensor | None, k: Tensor) -> Tensor:
        """(B δ,) tokens of each group."""
        lengths = torch.full((k.shape[0],), k.shape[-2], device=k.device)
        if mask is not None:
            lengths = valid_lengths(mask)
        group = torch.arange(self.dilation, device=k.device)
        return ((lengths[:, None] - group + self.dilation - 1) // self.dilation).flatten()
