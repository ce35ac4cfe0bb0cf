"""RAT: a recurrence within chunks, attention to the ends of earlier ones (Wei et al. 2025, arXiv
2507.04416, equations 1 to 3).

Within a chunk of l tokens keys and values are running means under a gate of each channel, which
start at zero with the chunk:

    k~_t = g_t ∘ k~_(t-1) + (1 - g_t) ∘ k_t,   v~_t likewise,   g_t = sigmoid(W_g k_t + b_g)

and a query sees the last of every earlier chunk c' < c, and where its own chunk stands:

    o_t = z_t ∘ softmax([q_t·k~_(c', l-1) for c' < c, q_t·k~_t] / sqrt(D)) [v~_(c', l-1); v~_t]
    z_t = sigmoid(W_z q_t)

with rotary codes of the chunk's number on queries and keys. Chunks of one token without gates are
softmax attention; a chunk as long as the sequence is a gated recurrence.

The authors' gates are full matrices of the layer's width, which they pay for with queries and keys
shared by the heads. Here heads have their own, as everywhere, and a gate is a matrix of its head
alone: W_g of the head's keys and W_z of its queries, linear maps of the same layer input within the
head's subspace. The same gate serves keys and values; where values are not as wide as keys they
have one of their own, of the values. The authors' code takes lengths that are multiples of l; here
the last chunk may be short.

Chunks are of positions: those of the context, or else places in the sequence. A masked token leaves
the state of its chunk as it is, and the end of a chunk without valid tokens is not there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.local import LocalAttention
from attentions.shared.autocast import without_autocast
from attentions.shared.decayed_scan import decayed_scan
from attentions.shared.positions import at_positions, prompt_at_positions
from attentions.shared.recompute import recomputed
from attentions.shared.rotary import rotated
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

_BLOCK = 256
"""Queries whose scores are in memory at a time."""


@dataclass
class RatState(DecodeState):
    """``ends_k`` (B, H, n, D), turned, ``ends_v`` and ``ends_mask`` (B, n) of the chunks that have
    ended; ``k``, ``v`` (B, H, 1, D) and ``some`` (B, 1) of the open one.
    """

    chunk: int = 0
    """Number of the open chunk"""


@register_attention(
    AttentionInfo(
        id="rat",
        family=Family.HYBRID,
        title="RAT (chunked recurrence and attention)",
        formula="o_i = z_i ∘ softmax([q_i·k~_c for earlier chunks c, q_i·k~_i] / sqrt(D)) "
        "[v~_c; v~_i], k~ and v~ gated running means within a chunk",
        patterns={Pattern.CAUSAL_SELF: Grade.FAITHFUL},
        absent={
            Pattern.NONCAUSAL_SELF: "the recurrence has a direction, and the end of a token's own "
            "chunk is in its future",
            Pattern.NONCAUSAL_CROSS: "a query has no chunk of the source of its own",
            Pattern.CAUSAL_CROSS: "a query has no chunk of the source of its own",
        },
        time="L (L / l + D) D",
        memory="L (D + 256 / l)",
        paper="Wei et al., RAT: Bridging RNN Efficiency and Attention Accuracy via Chunk-based "
        "Sequence Modeling",
        year=2025,
        url="https://arxiv.org/abs/2507.04416",
        options=(
            Option("chunk", 16, "l: tokens in a chunk", positive=True),
            Option("rope", True, "rotary codes of the chunks' numbers"),
            Option(
                "window", 0, "every second layer is a sliding window of that many keys; 0: none",
                least=0,
            ),
        ),
        presets={"rat": {"chunk": 16, "window": 0}, "rat-swa": {"chunk": 16, "window": 1024}},
    )
)  # fmt: skip
class Rat(Attention):
    """Gated running means within chunks, softmax over the ends of earlier chunks."""

    def __init__(
        self, spec: AttentionSpec, chunk: int = 16, rope: bool = True, window: int = 0
    ) -> None:
        super().__init__(spec)
        self.chunk, self.rope = chunk, rope
        self.local: LocalAttention | None = None
        if window and spec.layer_index % 2:
            self.local = LocalAttention(spec, window)
            return
        heads, dim, value_dim = spec.heads, spec.head_dim, spec.value_dim
        self.gate = nn.Parameter(_matrices(heads, dim, dim))
        self.gate_bias = nn.Parameter(_longest_means(heads, dim, chunk))
        self.output_gate = nn.Parameter(_matrices(heads, dim, value_dim))
        if value_dim != dim:
            self.value_gate = nn.Parameter(_matrices(heads, value_dim, value_dim))
            self.value_gate_bias = nn.Parameter(_longest_means(heads, value_dim, chunk))

    @at_positions
    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least."""
        if self.local is not None:
            out: Tensor = self.local.forward(q, k, v, context)
            return out
        dtype, mask = v.dtype, None if context is None else context.key_mask
        q, k, v = self._wide(q, k, v)
        k, v = self._means(k, v, mask)
        length, lag = k.shape[-2], k.shape[-2] - q.shape[-2]
        ends_k, ends_v, ends_mask = self._ends(k, v, mask)
        numbers = torch.arange(length, device=q.device) // self.chunk
        own_k, own_v = self._turned(k[..., lag:, :], numbers[lag:]), v[..., lag:, :]
        turned = self._turned(q, numbers[lag:]) * q.shape[-1] ** -0.5
        outputs = []
        for first in range(0, q.shape[-2], _BLOCK):
            rows = slice(first, first + _BLOCK)
            # No query of the block sees an end behind the chunk that its last one stands in.
            seen = slice(0, (lag + min(first + _BLOCK, q.shape[-2]) - 1) // self.chunk)
            hidden = torch.arange(length, device=q.device)[seen] >= numbers[lag:][rows, None]
            if ends_mask is not None:
                hidden = hidden | ~ends_mask[:, None, None, seen]
            blocks = (x[..., rows, :] for x in (turned, own_k, own_v))
            outputs.append(
                recomputed(_attend, *blocks, ends_k[..., seen, :], ends_v[..., seen, :], hidden)
            )
        return (torch.cat(outputs, dim=-2) * self._opening(q)).to(dtype)

    @at_positions
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """The recurrence token by token, and softmax over all states under a mask."""
        if self.local is not None:
            out: Tensor = self.local.reference(q, k, v, context)
            return out
        length, lag = k.shape[-2], k.shape[-2] - q.shape[-2]
        valid = q.new_ones(q.shape[0], length, dtype=torch.bool)
        if context is not None and context.key_mask is not None:
            valid = context.key_mask
        gate_k, gate_v = self._gates(k, v)
        states: list[tuple[Tensor, Tensor]] = []
        for t in range(length):
            kept = (torch.zeros_like(k[:, :, 0]), torch.zeros_like(v[:, :, 0]))
            if t % self.chunk:
                kept = states[-1]
            here = valid[:, t, None, None]
            new = (
                torch.where(here, g[:, :, t] * old + (1 - g[:, :, t]) * x[:, :, t], old)
                for g, x, old in zip((gate_k, gate_v), (k, v), kept, strict=True)
            )
            states.append((next(new), next(new)))
        keys, values = (torch.stack(x, dim=-2) for x in zip(*states, strict=True))
        place = torch.arange(length, device=q.device)
        number = place // self.chunk
        an_end = (place % self.chunk == self.chunk - 1) & (number < number[lag:, None])
        filled = torch.stack([valid[:, number == n].any(-1) for n in number], dim=-1)
        sees = an_end & filled[:, None, None, :] | (place == place[lag:, None])
        if self.rope:
            keys, q_turned = rotated(keys, number), rotated(q, number[lag:])
        else:
            q_turned = q
        scores = (q_turned @ keys.mT * q.shape[-1] ** -0.5).masked_fill(~sees, -math.inf)
        gate = torch.einsum("bhld,hde->bhle", q, self.output_gate.to(q.dtype)).sigmoid()
        return gate * (scores.softmax(-1) @ values)

    @prompt_at_positions
    @without_autocast
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """The ends of the full chunks, and where the open one stands."""
        if self.local is not None:
            state: DecodeState = self.local.prefill(k, v, context)
            return state
        mask = k.new_ones(k.shape[0], k.shape[-2], dtype=torch.bool)
        if context is not None and context.key_mask is not None:
            mask = context.key_mask
        _, k, v = self._wide(k, k, v)
        k, v = self._means(k, v, mask)
        ends_k, ends_v, ends_mask = self._ends(k, v, mask)
        assert ends_mask is not None
        length = k.shape[-2]
        start = length // self.chunk * self.chunk
        tensors = {"ends_k": ends_k, "ends_v": ends_v, "ends_mask": ends_mask}
        tensors["some"] = mask[:, start:].any(-1, keepdim=True)
        for name, x in (("k", k), ("v", v)):
            tensors[name] = F.pad(x[..., start:, :], (0, 0, 1, 0))[..., -1:, :]
        return RatState(length, tensors, chunk=start // self.chunk)

    @without_autocast
    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """Close the open chunk where the token stands in another one, add the token, attend."""
        if self.local is not None:
            return self.local.step(q_t, k_t, v_t, state, context)
        assert k_t is not None
        assert v_t is not None
        assert isinstance(state, RatState)
        dtype, tensors = v_t.dtype, state.tensors
        q_t, k_t, v_t = self._wide(q_t, k_t, v_t)
        place = state.length
        if context is not None and context.key_positions is not None:
            place = int(context.key_positions.reshape(-1)[0])
        if place // self.chunk != state.chunk:
            self._close(state)
            state.chunk = place // self.chunk
        gate_k, gate_v = self._gates(k_t, v_t)
        tensors["k"] = gate_k * tensors["k"] + (1 - gate_k) * k_t
        tensors["v"] = gate_v * tensors["v"] + (1 - gate_v) * v_t
        tensors["some"] = torch.ones_like(tensors["some"])
        number = torch.full((1,), state.chunk, device=q_t.device)
        out = _attend(
            self._turned(q_t, number) * q_t.shape[-1] ** -0.5,
            self._turned(tensors["k"], number),
            tensors["v"],
            tensors["ends_k"],
            tensors["ends_v"],
            ~tensors["ends_mask"][:, None, None],
        )
        state.length = place + 1
        return (out * self._opening(q_t)).to(dtype), state

    def state_size(self, length: int) -> int:
        """H (D + Dv) numbers for each full chunk, and for the open one."""
        if self.local is not None:
            return self.local.state_size(length)
        width = self.spec.head_dim + self.spec.value_dim
        return self.spec.heads * width * (length // self.chunk + 1)

    def flops(self, shape: AttentionShape) -> float:
        """The gates' products, and 2 B H Lq (D + Dv) for each chunk that a query sees, half of
        them on average.
        """
        if self.local is not None:
            return self.local.flops(shape)
        rows = shape.batch * shape.heads
        gates = 2 * rows * (shape.length_k + shape.length_q) * shape.head_dim * shape.value_dim
        seen = shape.length_k / self.chunk / 2 + 1
        return gates + 2 * rows * shape.length_q * seen * (shape.head_dim + shape.value_dim)

    def _wide(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        dtype = torch.promote_types(v.dtype, torch.float32)
        return q.to(dtype), k.to(dtype), v.to(dtype)

    def _gates(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Gates g of the keys and of the values, (B, H, L, D) and (B, H, L, Dv)."""
        gate = (k @ self.gate.to(k.dtype) + self.gate_bias.to(k.dtype)[:, None]).sigmoid()
        if v.shape[-1] == k.shape[-1]:
            return gate, gate
        of_values = v @ self.value_gate.to(v.dtype) + self.value_gate_bias.to(v.dtype)[:, None]
        return gate, of_values.sigmoid()

    def _opening(self, q: Tensor) -> Tensor:
        """Gate z of the outputs, (B, H, L, Dv)."""
        return (q @ self.output_gate.to(q.dtype)).sigmoid()

    def _means(self, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """k~ and v~ (B, H, L, D): every chunk is a sequence of its own."""
        length = k.shape[-2]
        chunk = min(self.chunk, max(1, length))
        found = []
        for gate, x in zip(self._gates(k, v), (k, v), strict=True):
            added = (1 - gate) * x
            if mask is not None:
                hidden = ~mask[:, None, :, None]
                gate, added = gate.masked_fill(hidden, 1.0), added.masked_fill(hidden, 0.0)
            padding = (0, 0, 0, -length % chunk)
            gate, added = (
                F.pad(y, padding).unflatten(2, (-1, chunk)).flatten(0, 2) for y in (gate, added)
            )
            states = decayed_scan(gate, added).unflatten(0, (*x.shape[:2], -1)).flatten(2, 3)
            found.append(states[..., :length, :])
        return found[0], found[1]

    def _ends(
        self, k: Tensor, v: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Turned keys and values (B, H, n, D) at the ends of full chunks, and which have tokens."""
        count = k.shape[-2] // self.chunk
        last = slice(self.chunk - 1, count * self.chunk, self.chunk)
        keys = self._turned(k[..., last, :], torch.arange(count, device=k.device))
        if mask is not None:
            whole = mask[:, : count * self.chunk]
            mask = whole.unflatten(1, (count, self.chunk)).any(-1)
        return keys, v[..., last, :], mask

    def _close(self, state: RatState) -> None:
        """Append the open chunk to the ends, and begin another."""
        tensors = state.tensors
        number = torch.full((1,), state.chunk, device=tensors["k"].device)
        for name, x in (("k", self._turned(tensors["k"], number)), ("v", tensors["v"])):
            tensors[f"ends_{name}"] = torch.cat([tensors[f"ends_{name}"], x], dim=-2)
            tensors[name] = torch.zeros_like(x)
        tensors["ends_mask"] = torch.cat([tensors["ends_mask"], tensors["some"]], dim=-1)

    def _turned(self, x: Tensor, numbers: Tensor) -> Tensor:
        return rotated(x, numbers) if self.rope else x


def _attend(
    q: Tensor, own_k: Tensor, own_v: Tensor, ends_k: Tensor, ends_v: Tensor, hidden: Tensor
) -> Tensor:
    """Softmax over the ends (B, H, n, D) that are not hidden, and each query's own state."""
    scores = (q @ ends_k.mT).masked_fill(hidden, -math.inf)
    own = (q * own_k).sum(-1, keepdim=True)
    weights = torch.cat([scores, own], dim=-1).softmax(-1)
    return weights[..., :-1] @ ends_v + weights[..., -1:] * own_v


def _matrices(heads: int, width: int, out: int) -> Tensor:
    """(H, D, out), drawn like the weights of a linear layer."""
    return torch.empty(heads, width, out).uniform_(-(width**-0.5), width**-0.5)


def _longest_means(heads: int, width: int, chunk: int) -> Tensor:
    """(H, D) biases log(u), u uniform in 1 .. l - 1: means over about u tokens."""
    return torch.empty(heads, width).uniform_(1, max(1, chunk - 1)).log()
