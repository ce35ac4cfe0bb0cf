"""Longformer: a window, and a few tokens that read all and that all read (Beltagy et al. 2020).

arXiv 2004.05150. The first g tokens are global; i and j are places:

    o_i = softmax_j(q_i·k_j / sqrt(D)) v_j   over |i - j| <= w and the global j;  over all j where i
                                             is global

Everything is two steps away from everything, through a global token. The paper names global tokens
by the task: the token of the class, those of the question. Here they are the first ones that are
there, which is where a token of the class stands. Their queries and keys have projections of their
own there, begun as copies of the others; a slot has one set, so that the pattern is graded adapted.
Dilated windows, which the paper has in its model of text alone, are not here.

That model is causal and has windows without global tokens, which is `local`; with first tokens that
all read it is `swa-sink`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attentions.shared.autocast import without_autocast
from attentions.shared.density import PartialReads
from attentions.shared.exact import exact_softmax_attention
from attentions.shared.key_ranges import keys_in_runs, union_attention
from attentions.shared.positions import at_positions
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
        id="longformer",
        family=Family.WINDOWED,
        title="Longformer (window and global tokens)",
        formula="o_i = softmax_j(q_i·k_j / sqrt(D)) v_j over |i - j| <= w and j < g; over all j "
        "where i < g",
        patterns={Pattern.NONCAUSAL_SELF: Grade.ADAPTED},
        absent={
            Pattern.CAUSAL_SELF: "a token that reads all would read what comes later; the paper's "
            "causal model has windows alone, which is local",
            Pattern.NONCAUSAL_CROSS: "queries and keys of two sequences have no common positions "
            "to centre a window on",
            Pattern.CAUSAL_CROSS: "queries and keys of two sequences have no common positions "
            "to centre a window on",
        },
        time="L w D",
        memory="L D",
        paper="Beltagy et al., Longformer: The Long-Document Transformer",
        year=2020,
        url="https://arxiv.org/abs/2004.05150",
        options=(
            Option("window", 32, "w: keys on each side", positive=True),
            Option("global_tokens", 1, "g: tokens at the beginning that read all and are read by "
                   "all", least=0),
        ),
        presets={"paper": {"window": 256}},
    )
)  # fmt: skip
class Longformer(PartialReads):
    """Softmax over a window of keys and the global ones."""

    def __init__(self, spec: AttentionSpec, window: int = 32, global_tokens: int = 1) -> None:
        super().__init__(spec)
        self.window, self.global_tokens = window, global_tokens

    @at_positions
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least."""
        mask = None if context is None else context.key_mask
        out = union_attention(q, k, v, *self._runs(q, k, mask, apart=True), mask)
        return self._read_all(out, q, k, v, mask).to(v.dtype)

    @at_positions
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Dense softmax under a mask."""
        length = k.shape[2]
        valid = torch.ones(q.shape[0], length, dtype=torch.bool, device=q.device)
        if context is not None and context.key_mask is not None:
            valid = context.key_mask
        j = torch.arange(length, device=q.device)
        rank = valid.cumsum(-1)
        shared = valid & (rank <= self.global_tokens)
        reads_all = shared[:, length - q.shape[2] :]
        near = (j[length - q.shape[2] :, None] - j).abs() <= self.window
        sees = near | shared[:, None] | reads_all[:, :, None]
        return exact_softmax_attention(q, k, v, (sees & valid[:, None])[:, None])

    def columns_read(self, q: Tensor, k: Tensor, context: AttentionContext) -> Tensor:
        """See `PartialReads.columns_read`."""
        first, last = self._runs(q, k, context.key_mask)
        return keys_in_runs(first, last, k.shape[2], context, q)

    def flops(self, shape: AttentionShape) -> float:
        """2 B H (D + Dv) for each pair of a query and a key that it reads."""
        length, shared = shape.length_k, min(self.global_tokens, shape.length_k)
        width = min(length, shared + 2 * self.window + 1)
        pairs = shared * length + max(0, shape.length_q - shared) * width
        return 2.0 * shape.batch * shape.heads * pairs * (shape.head_dim + shape.value_dim)

    @without_autocast
    def _read_all(
        self, out: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Outputs (B, H, Lq, Dv) with those of global tokens, which read all, in their place."""
        length = k.shape[2]
        valid = torch.ones(len(q), length, dtype=torch.bool, device=q.device)
        valid = valid if mask is None else mask
        own = (valid & (valid.cumsum(-1) <= self.global_tokens))[:, length - q.shape[2] :]
        count = min(self.global_tokens, q.shape[2])
        order = (~own).long().sort(dim=-1, stable=True).indices[:, :count]
        rows = order[:, None, :, None].expand(-1, q.shape[1], -1, -1)
        chosen = q.gather(2, rows.expand(-1, -1, -1, q.shape[3])).to(out.dtype)
        found = exact_softmax_attention(
            chosen, k.to(out.dtype), v.to(out.dtype), valid[:, None, None]
        )
        places = rows.expand(-1, -1, -1, out.shape[3])
        taken = own.gather(1, order)[:, None, :, None]
        return out.scatter(2, places, torch.where(taken, found, out.gather(2, places)))

    @torch.no_grad()
    def _runs(
        self, q: Tensor, k: Tensor, mask: Tensor | None, apart: bool = False
    ) -> tuple[Tensor, Tensor]:
        """(B or 1, 1, Lq, 2): the global keys, or all, and the window as far as it is behind; of
        global tokens too, if what they read is left ``apart``.
        """
        length = k.shape[2]
        valid = torch.ones(1, length, dtype=torch.bool, device=q.device) if mask is None else mask
        rank = valid.cumsum(-1)
        # Up to the last global token; what is masked before it is hidden in any case.
        end = (rank - valid.long() < self.global_tokens).sum(-1, keepdim=True)
        place = torch.arange(length - q.shape[2], length, device=q.device)
        reads_all = (valid & (rank <= self.global_tokens))[:, length - q.shape[2] :]
        stop = end.expand_as(reads_all) if apart else torch.where(reads_all, length, end)
        start = torch.maximum((place - self.window).clamp(min=0), stop)
        last = (place + self.window + 1).clamp(max=length).expand_as(start)
        first = torch.stack([torch.zeros_like(start), start], -1)
        return first[:, None], torch.stack([stop, last], -1)[:, None]
