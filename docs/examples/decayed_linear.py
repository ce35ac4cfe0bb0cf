"""Linear attention that forgets, with a half-life for every head.

    o_i = sum_{j<=i} g_h^(i-j) phi(q_i)·phi(k_j) v_j / sum_{j<=i} g_h^(i-j) phi(q_i)·phi(k_j)

with phi = elu + 1 and g_h = 2^(-1 / (half_life 2^h)) in head h: the decay of retention (Sun et al.
2023, arXiv 2307.08621, section 2.1) with the normalisation of linear attention. Within a chunk the
weights are a matrix; what came before it is one state (D, Dv + 1) per head.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.shared.features import elu_features
from attentions.shared.masks import visible
from attentions.shared.positions import at_positions
from attentions.shared.prefix_sums import read_sums, safe_divide
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

_CHUNK = 64


@register_attention(
    AttentionInfo(
        id="decayed-linear",
        family=Family.LINEAR,
        title="Linear attention with decay",
        formula="o_i = sum_j g^(i-j) phi(q_i)·phi(k_j) v_j / sum_j g^(i-j) phi(q_i)·phi(k_j)",
        patterns={Pattern.CAUSAL_SELF: Grade.ADAPTED},
        absent={Pattern.NONCAUSAL_SELF: "the decay needs an order of keys before the query"},
        time="L D^2",
        memory="D^2",
        options=(Option("half_life", 64, "tokens after which head 0 has forgotten half", least=1),),
    )
)
class DecayedLinear(Attention):
    """Linear attention with decay; retention divides by a norm instead."""

    def __init__(self, spec: AttentionSpec, half_life: int = 64) -> None:
        super().__init__(spec)
        lives = half_life * 2.0 ** torch.arange(spec.heads)
        self.register_buffer("rate", -1 / lives[:, None, None], persistent=False)

    @at_positions
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; in float32 at least."""
        fq, fk, values = elu_features(q), *_keys_and_values(k, v, context)
        # Queries are the last of the keys: earlier keys are only part of the state.
        start = k.shape[-2] - q.shape[-2]
        state = self._sums(fk[..., :start, :], values[..., :start, :])
        outputs = []
        for begin in range(0, q.shape[-2], _CHUNK):
            rows = fq[..., begin : begin + _CHUNK, :]
            keys = fk[..., start + begin : start + begin + _CHUNK, :]
            own = values[..., start + begin : start + begin + _CHUNK, :]
            count = rows.shape[-2]
            age = torch.arange(count, device=q.device, dtype=fq.dtype)
            within = self._decay(age[:, None] - age).tril() * (rows @ keys.mT)
            outputs.append(within @ own + self._decay(age[:, None] + 1) * (rows @ state))
            state = self._decay(age.new_tensor(count)) * state + self._sums(keys, own)
        sums = torch.cat(outputs, dim=-2) if outputs else fq @ state
        return safe_divide(sums[..., :-1], sums[..., -1:]).to(v.dtype)

    @at_positions
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """The matrix of weights, written out."""
        places = torch.arange(k.shape[-2], device=q.device, dtype=q.dtype)
        ages = places[k.shape[-2] - q.shape[-2] :, None] - places
        weights = (elu_features(q) @ elu_features(k).mT) * self._decay(ages.clamp(min=0))
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        weights = weights if mask is None else weights * mask
        return safe_divide(weights @ v, weights.sum(-1, keepdim=True))

    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """The state after the prompt, (B, H, D, Dv + 1), and the place of its last token."""
        fk, values = _keys_and_values(k, v, context)
        places = None if context is None else context.key_positions
        if places is None:
            places = torch.arange(k.shape[-2], device=k.device)
        places = _in_rows(places, fk)
        last = places[..., -1:] if k.shape[-2] else places.new_full((1, 1, 1, 1), -1)
        forgotten = self._decay(last - places).mT
        return DecodeState(k.shape[-2], {"sums": (fk * forgotten).mT @ values, "last": last})

    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """Forget for as long as has passed since the last token, add this one, read."""
        assert k_t is not None
        assert v_t is not None
        tensors, fk = state.tensors, elu_features(k_t)
        given = None if context is None else context.key_positions
        place = tensors["last"] + 1 if given is None else _in_rows(given, fk)
        kept = self._decay(place - tensors["last"]) * tensors["sums"]
        state.length, tensors["last"] = state.length + 1, place
        tensors["sums"] = kept + fk.mT @ F.pad(v_t.to(fk.dtype), (0, 1), value=1.0)
        return read_sums(elu_features(q_t), tensors["sums"]).to(q_t.dtype), state

    def state_size(self, length: int) -> int:
        """H D (Dv + 1) numbers and a place, whatever the length."""
        return self.spec.heads * self.spec.head_dim * (self.spec.value_dim + 1) + 1

    def flops(self, shape: AttentionShape) -> float:
        """Of the states and their reading, and of the matrix of weights within chunks."""
        rows, width = shape.batch * shape.heads, shape.value_dim + 1
        states = 2 * rows * (shape.length_q + shape.length_k) * shape.head_dim * width
        return states + 2 * rows * shape.length_q * _CHUNK * (shape.head_dim + width)

    def _decay(self, age: Tensor) -> Tensor:
        """2^(-age / half-life) in every head: (..., H, i, j) from ages (..., 1, i, j) or (i, j)."""
        return torch.exp2(age * self.rate.to(age.dtype))

    def _sums(self, fk: Tensor, values: Tensor) -> Tensor:
        """The state right after some keys (B, H, n, D), the last of which is not yet forgotten."""
        count = fk.shape[-2]
        age = torch.arange(count - 1, -1, -1, device=fk.device, dtype=fk.dtype)
        return (fk * self._decay(age[:, None])).mT @ values


def _keys_and_values(
    k: Tensor, v: Tensor, context: AttentionContext | None
) -> tuple[Tensor, Tensor]:
    """Features of the keys, zero where masked, and (v, 1) in their dtype."""
    fk = elu_features(k)
    if context is not None and context.key_mask is not None:
        fk = fk.masked_fill(~context.key_mask[:, None, :, None], 0.0)
    return fk, F.pad(v.to(fk.dtype), (0, 1), value=1.0)


def _in_rows(places: Tensor, like: Tensor) -> Tensor:
    """(B or 1, 1, 1, L) from positions (L,) or (B, L), in the dtype of ``like``."""
    return torch.atleast_2d(places)[:, None, None].to(like.dtype)
