"""Selective attention: tokens tell those after them what need not be read any more (Leviathan et
al. 2025, arXiv 2410.02703).

    o_i = sum_j softmax_j(z_ij - F_ij) v_j,   z_ij = q_i·k_j / sqrt(D)
    F_ij = sum_(l < i) S_lj,   S_lj = max(0, z_lj of head 0)

over the keys j that row i sees. What head 0 of token l finds in key j is taken off the
scores of j for all tokens after l, in all heads, head 0 among them: F is one matrix of a layer. S
is zero at the first token, which is never masked, at j = l, as no token masks itself, and at keys
that l does not see. There are no parameters. Where no score of head 0 is positive it is softmax
attention.

* The first token is the first that is valid; a masked token says nothing.
* Causal cross attention (adapted): what a decoder's tokens have read of the source they take off it
  for those after them. S has no diagonal there, and the first token is the source's.
* F is a sum over all queries before: a call with the last queries alone raises
  `NotImplementedError`, and there is no `step`, as a prompt is given to `prefill` without its
  queries.

Blocks of queries are done one after the other, and again in the backward pass. They hand F on, a
number for every key, which is kept for each block. The paper also drops keys by their F, and trains
with a loss that makes it large; both are left out.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.masks import visible
from attentions.shared.recompute import recomputed
from attentions.softmax import softmax_flops
from cab import (
    Attention,
    AttentionContext,
    AttentionInfo,
    AttentionShape,
    Family,
    Grade,
    Pattern,
    register_attention,
)

_BLOCK = 64
"""Queries that are done at a time"""


@register_attention(
    AttentionInfo(
        id="selective-attn",
        family=Family.SOFTMAX,
        title="Selective attention",
        formula="o_i = softmax_j(z_ij - sum_(l < i) ReLU(z_lj of head 0)) v_j, "
        "z_ij = q_i·k_j / sqrt(D)",
        patterns={
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.CAUSAL_CROSS: Grade.ADAPTED,
        },
        absent={
            Pattern.NONCAUSAL_SELF: "what masks a key is said by the tokens before, and without "
            "causality none is before another",
            Pattern.NONCAUSAL_CROSS: "what masks a key is said by the queries before, and without "
            "causality none is before another",
        },
        time="L^2 D",
        memory="L (c + L / c)",
        paper="Leviathan et al., Selective Attention Improves Transformer",
        year=2025,
        url="https://arxiv.org/abs/2410.02703",
    )
)
class SelectiveAttention(Attention):
    """Softmax attention less what earlier tokens have masked."""

    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least.

        Raises:
            NotImplementedError: in self attention, fewer queries than keys.
        """
        self._require_all_queries(q, k)
        dtype, length = v.dtype, k.shape[-2]
        wide = torch.promote_types(dtype, torch.float32)
        q, k, v = (x.to(wide) for x in (q, k, v))
        speaks, maskable = self._may(q, k, context)
        causal = not self.pattern.cross
        masked = k.new_zeros(k.shape[0], 0 if causal else length)
        outputs = []
        for first in range(0, q.shape[-2], _BLOCK):
            rows = slice(first, first + _BLOCK)
            last = min(first + _BLOCK, length) if causal else length
            # Nobody has said anything of keys that are new.
            masked = F.pad(masked, (0, last - masked.shape[-1]))
            mask = None if context is None or context.key_mask is None else context.key_mask
            block = partial(
                self._block,
                speaks=speaks[:, rows],
                maskable=maskable[:, :last],
                mask=None if mask is None else mask[:, :last],
            )
            past = (k[..., :last, :], v[..., :last, :])
            out, masked = recomputed(block, q[..., rows, :], *past, masked)
            outputs.append(out)
        return torch.cat(outputs, dim=-2).to(dtype)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """The matrices S and F of all tokens."""
        self._require_all_queries(q, k)
        length = q.shape[-2]
        mask = visible(self.pattern, length, k.shape[-2], context, q.device)
        seen = torch.ones(1, 1, length, k.shape[-2], dtype=torch.bool, device=q.device)
        seen = seen if mask is None else seen & mask
        scores = q @ k.mT * q.shape[-1] ** -0.5
        speaks, maskable = self._may(q, k, context)
        counts = seen[:, 0] & speaks[:, :, None] & maskable[:, None, :]
        if not self.pattern.cross:
            counts = counts & ~torch.eye(length, dtype=torch.bool, device=q.device)
        said = scores[:, 0].clamp(min=0).masked_fill(~counts, 0.0)
        earlier = torch.ones(length, length, dtype=q.dtype, device=q.device).tril(-1)
        scores = (scores - (earlier @ said)[:, None]).masked_fill(~seen, -torch.inf)
        return scores.softmax(-1).masked_fill(~seen, 0.0).to(v.dtype) @ v

    def flops(self, shape: AttentionShape) -> float:
        """Those of softmax attention, two for every pair of head 0 and one for every other."""
        pairs = shape.batch * shape.length_q * shape.length_k
        causal = self.pattern is Pattern.CAUSAL_SELF
        own = pairs * (2 + shape.heads) * (0.5 if causal else 1.0)
        return softmax_flops(shape, causal) + own

    def _require_all_queries(self, q: Tensor, k: Tensor) -> None:
        if not self.pattern.cross and q.shape[-2] != k.shape[-2]:
            raise NotImplementedError(
                "selective-attn sums over all queries before a token: give as many as keys"
            )

    def _may(self, q: Tensor, k: Tensor, context: AttentionContext | None) -> tuple[Tensor, Tensor]:
        """(B or 1, Lq) bool, queries that may mask keys; (B or 1, Lk) bool, keys that they may."""
        context = AttentionContext() if context is None else context
        maskable = context.key_mask
        if maskable is None:
            maskable = torch.ones(1, k.shape[-2], dtype=torch.bool, device=k.device)
        speaks = context.query_mask if self.pattern.cross else context.key_mask
        if speaks is None:
            speaks = torch.ones(1, q.shape[-2], dtype=torch.bool, device=q.device)
        return speaks, maskable & (maskable.cumsum(-1) > 1)

    def _block(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        masked: Tensor,
        speaks: Tensor,
        maskable: Tensor,
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Outputs of queries, of which the last stands at the last key, and what is masked behind
        them (B, Lk), from what is masked before them.
        """
        context = None if mask is None else AttentionContext(key_mask=mask)
        seen = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        scores = (q * q.shape[-1] ** -0.5) @ k.mT
        counts = speaks[:, :, None] & maskable[:, None, :]
        if not self.pattern.cross:
            before = k.shape[-2] - q.shape[-2] - 1
            counts = counts.expand(-1, *scores.shape[-2:]).tril(before)
        said = scores[:, 0].clamp(min=0).masked_fill(~counts, 0.0)
        # Of the queries before each: the sum down to the row above.
        above = F.pad(said[:, :-1].cumsum(-2), (0, 0, 1, 0)) + masked[:, None, :]
        scores = scores - above[:, None]
        if seen is not None:
            scores = scores.masked_fill(~seen, -torch.inf)
        weights = scores.softmax(-1)
        if seen is not None:
            weights = weights.masked_fill(~seen, 0.0)
        return weights @ v, masked + said.sum(-2)
