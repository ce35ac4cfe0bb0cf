"""Decoding with a cache of every key and value, for mechanisms whose step reads all of them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cab import Attention, AttentionContext, DecodeState


class KeyValueCache(Attention):
    """`prefill`, `step` and `state_size` in terms of attention of one query to the whole cache.

    The cache grows by D + Dv numbers a head and token. In cross attention the source is cached
    once and a step adds nothing.
    """

    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """Keep the keys, values and key mask of the prompt or source."""
        state = DecodeState(k.shape[-2], {"k": k, "v": v})
        if context is not None and context.key_mask is not None:
            state.tensors["key_mask"] = context.key_mask
        return state

    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """Append the token's key and value, if it has any, and attend with its query."""
        tensors = state.tensors
        mask = tensors.get("key_mask")
        if k_t is not None and v_t is not None:
            tensors["k"] = torch.cat([tensors["k"], k_t], dim=-2)
            tensors["v"] = torch.cat([tensors["v"], v_t], dim=-2)
            state.length += k_t.shape[-2]
            if mask is not None:
                mask = tensors["key_mask"] = F.pad(mask, (0, k_t.shape[-2]), value=True)
        own = AttentionContext() if context is None else context
        cached = AttentionContext(key_mask=mask, query_input=own.query_input)
        return self.attend_once(q_t, tensors["k"], tensors["v"], cached), state

    def attend_once(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Attention of one query, (B, H, 1, D), to the cache; the context has its layer input."""
        return self(q, k, v, context)

    def state_size(self, length: int) -> int:
        """2 H L D numbers (with values as wide as keys)."""
        return 2 * self.spec.heads * length * self.spec.head_dim
