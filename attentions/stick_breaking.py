"""Stick-breaking attention: each query breaks weight off a stick, from the nearest key backwards
(Tan et al. 2025, arXiv 2410.17980).

    o_i = sum_(j < i) A_ij v_j,   A_ij = sigmoid(z_ij) prod_(j < l < i) (1 - sigmoid(z_il))
    z_ij = q_i·k_j / sqrt(D)

over the keys j before token i. Of what nearer keys have left of a stick of length 1, key j takes
the part sigmoid(z_ij). Weights of a row add up to at most 1, the rest belongs to no key, and as a
key takes its part before all that are further away, order is told without position codes. A token
does not see itself, so the first one sees nothing and gives zeros; with ``current`` it does, as an
option of public kernels has it. What they also return, the rest of the stick, is not used here.

In log space a weight is ln sigmoid(z_ij) + sum_l ln sigmoid(-z_il), where the sum over the nearer
keys is exclusive and taken from the nearest on: large terms of far keys are then not in the sums
that near ones are left with. Blocks of queries are done one after the other and again in the
backward pass, so that there is never a matrix between all tokens.

* Cross attention, an extension: a query stands behind the whole source, and the last key comes
  first.
* A masked key is not there and takes nothing.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.cache import KeyValueCache
from attentions.shared.recompute import recomputed
from attentions.softmax import softmax_flops
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

_BLOCK = 64
"""Queries that are done at a time"""
_PER_PAIR = 8
"""Operations of a pair beside products: two logarithms of sigmoids, the sum, the exponential"""


@register_attention(
    AttentionInfo(
        id="stick-breaking",
        family=Family.SOFTMAX,
        title="Stick-breaking attention",
        formula="o_i = sum_(j < i) sigmoid(z_ij) prod_(j < l < i) (1 - sigmoid(z_il)) v_j, "
        "z_ij = q_i·k_j / sqrt(D)",
        patterns={
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        absent={
            Pattern.NONCAUSAL_SELF: "a stick is broken from the nearest key backwards, and keys on "
            "both sides of a token have no one order",
        },
        time="L^2 D",
        memory="L",
        paper="Tan et al., Scaling Stick-Breaking Attention: An Efficient Implementation and "
        "In-depth Study",
        year=2025,
        url="https://arxiv.org/abs/2410.17980",
        options=(Option("current", False, "in self attention a token sees itself, and first"),),
    )
)
class StickBreaking(KeyValueCache):
    """Weights that keys take one after the other, the nearest first."""

    def __init__(self, spec: AttentionSpec, current: bool = False) -> None:
        super().__init__(spec)
        self.hidden_keys = 0 if current or spec.pattern.cross else 1
        """Last keys of those up to a query's place that it does not see"""

    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least."""
        dtype, length, lag = v.dtype, k.shape[-2], k.shape[-2] - q.shape[-2]
        wide = torch.promote_types(dtype, torch.float32)
        q, k, v = (x.to(wide) for x in (q, k, v))
        mask = None if context is None else context.key_mask
        outputs = []
        for first in range(0, q.shape[-2], _BLOCK):
            rows = q[..., first : first + _BLOCK, :]
            last = length if self.pattern.cross else lag + first + rows.shape[-2]
            block = partial(self._block, mask=None if mask is None else mask[:, :last])
            outputs.append(recomputed(block, rows, k[..., :last, :], v[..., :last, :]))
        return torch.cat(outputs, dim=-2).to(dtype)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """The product over nearer keys, written out."""
        seen = self._seen(q, k, None if context is None else context.key_mask)
        scores = q @ k.mT * q.shape[-1] ** -0.5
        left_by_key = scores.neg().sigmoid().masked_fill(~seen, 1.0)
        left = left_by_key.flip(-1).cumprod(-1).flip(-1)
        left = F.pad(left[..., 1:], (0, 1), value=1.0)
        return (scores.sigmoid() * left).masked_fill(~seen, 0.0).to(v.dtype) @ v

    def flops(self, shape: AttentionShape) -> float:
        """Those of softmax attention, and a few for the logarithms of every pair."""
        pairs = shape.batch * shape.heads * shape.length_q * shape.length_k
        causal = self.pattern is Pattern.CAUSAL_SELF
        return softmax_flops(shape, causal) + _PER_PAIR * pairs * (0.5 if causal else 1.0)

    def _block(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Outputs of queries of which the last stands at the last key."""
        seen = self._seen(q, k, mask)
        scores = (q * q.shape[-1] ** -0.5) @ k.mT
        left = F.logsigmoid(-scores).masked_fill(~seen, 0.0)
        # Of the keys nearer than each: the sum from the nearest on, one key behind.
        nearer = F.pad(left[..., 1:].flip(-1).cumsum(-1).flip(-1), (0, 1))
        weights = (F.logsigmoid(scores) + nearer).exp().masked_fill(~seen, 0.0)
        return weights @ v

    def _seen(self, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
        """(B or 1, 1, Lq or 1, Lk) bool, True where a query sees a key."""
        length_q, length_k = q.shape[-2], k.shape[-2]
        seen = torch.ones(1, 1, 1, length_k, dtype=torch.bool, device=q.device)
        if not self.pattern.cross:
            seen = seen.expand(-1, -1, length_q, -1)
            seen = seen.tril(length_k - length_q - self.hidden_keys)
        return seen if mask is None else seen & mask[:, None, None, :]
