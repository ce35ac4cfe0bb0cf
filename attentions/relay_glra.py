"""Relay attention: units of tokens that talk through a few relay tokens each (RelayFormer, 2025,
arXiv 2508.09459), as one operator.

Published as the wiring of two transformer blocks: every unit, a tile of an image, attends within
itself and its r relays; then the relays of all units, as one sequence, pass through the next block
with rotary codes and low-rank adapters of their own, and are written back. Here it is what flows in
these two blocks, per head and without projections between them, for units u of U tokens:

    gather   a = softmax(R_q·[R_k; k_u] / sqrt(D)),   κ_u = a [R_k; k_u],   z_u = a [R_v; v_u]
    global   g_u = softmax over all relays of all units (κ_u·κ_u' / sqrt(D), turned by u - u') z_u'
    scatter  o_i = softmax(q_i·[k_u; κ_u] / sqrt(D)) [v_u; g_u]        u the unit of i

with learned relays R_q, R_k and R_v (r of each for a head) and rotary codes of the unit's number.
Without relays it is attention within blocks.

Adapted further in these ways. Causally a query sees the tokens of its unit up to itself and the
relays of the unit before, whose g is over the units up to there. In cross attention the units are
of the source, with which a query is not aligned: it attends to the relays of all units, [κ; g].
The published tiles overlap by a token; these do not.

Units are of positions: those of the context, or else places in the sequence. A unit without valid
tokens has no relays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.exact import exact_softmax
from attentions.shared.positions import at_positions, prompt_at_positions
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


class Relays(NamedTuple):
    """Of n units, in order."""

    keys: Tensor
    """(B, H, n, r, D) κ"""
    values: Tensor
    """(B, H, n, r, Dv) z, or g"""
    filled: Tensor
    """(B, n) bool, whether the unit has valid tokens"""


@dataclass
class RelayState(DecodeState):
    """Keys, values and mask of the open unit; relays of all that have ended, and g of the last."""

    unit: int = 0
    """Number of the open unit"""


@register_attention(
    AttentionInfo(
        id="relay-glra",
        family=Family.HYBRID,
        title="Relay attention (RelayFormer)",
        formula="o_i = softmax(q_i·[k_u; κ_u] / sqrt(D)) [v_u; g_u], κ_u r relays of the unit u of "
        "i, g softmax attention among the relays of all units",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.ADAPTED,
            Pattern.CAUSAL_SELF: Grade.ADAPTED,
            Pattern.NONCAUSAL_CROSS: Grade.ADAPTED,
            Pattern.CAUSAL_CROSS: Grade.ADAPTED,
        },
        time="L (U + r^2 L / U^2) D",
        memory="L D + r^2 L / U^2",
        paper="RelayFormer: global-local relay attention for scalable image and video "
        "manipulation localization",
        year=2025,
        url="https://arxiv.org/abs/2508.09459",
        options=(
            Option("unit", 64, "U: tokens in a unit", positive=True),
            Option("relays", 3, "r: relay tokens of a unit", least=0),
            Option("rope", True, "rotary codes of the units' numbers among relays"),
        ),
        presets={"relayformer": {"unit": 1089, "relays": 3}},
    )
)
class RelayAttention(Attention):
    """Softmax attention within units of tokens, and among relays of the units."""

    def __init__(
        self, spec: AttentionSpec, unit: int = 64, relays: int = 3, rope: bool = True
    ) -> None:
        super().__init__(spec)
        if spec.pattern.cross and not relays:
            raise ValueError("cross attention reads the source through relays: give at least one")
        self.unit, self.relays, self.rope = unit, relays, rope
        shape = (spec.heads, relays)
        self.relay_q = nn.Parameter(torch.randn(*shape, spec.head_dim))
        self.relay_k = nn.Parameter(torch.randn(*shape, spec.head_dim))
        self.relay_v = nn.Parameter(torch.randn(*shape, spec.value_dim))

    @at_positions
    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least."""
        dtype = v.dtype
        (q, k, v), mask = self._prepare(q, k, v, context)
        if self.pattern.cross:
            return self._read(q, self._spread(self._gather(k, v, mask))).to(dtype)
        lag = k.shape[-2] - q.shape[-2]
        length = k.shape[-2]
        causal = self.pattern is Pattern.CAUSAL_SELF
        relays = self._gather(k, v, mask)
        spread = self._spread(relays, causal=causal)
        if causal:
            spread = _of_the_unit_before(spread)
        # Queries of the tokens before the first are stood in by zeros and dropped.
        rows = self._units(F.pad(q, (0, 0, lag, 0)))
        keys = torch.cat([spread.keys, self._units(k)], dim=-2)
        values = torch.cat([spread.values, self._units(v)], dim=-2)
        own = self._unit_mask(mask)[:, :, None]
        size = own.shape[-1]
        if causal:
            own = own & own.new_ones(size, size).tril()
        own = own.expand(-1, -1, size, -1)
        shared = spread.filled[..., None, None].expand(-1, -1, size, self.relays)
        out = _softmax(rows, keys, values, torch.cat([shared, own], dim=-1)[:, None])
        return out.flatten(2, 3)[..., lag:length, :].to(dtype)

    @at_positions
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Relays unit by unit, and softmax of every query over all tokens and relays."""
        (q, k, v), mask = self._prepare(q, k, v, context)
        length, lag, r = k.shape[-2], k.shape[-2] - q.shape[-2], self.relays
        relay_q, relay_k, relay_v = self._relays(k)
        kappa, z = [], []
        starts = range(0, length, self.unit)
        for start in starts:
            own = slice(start, min(start + self.unit, length))
            sees = F.pad(mask[:, None, None, own], (r, 0), value=True)
            keys = torch.cat([relay_k, k[..., own, :]], dim=-2)
            a = exact_softmax(relay_q, keys, sees)
            kappa.append(a @ keys)
            z.append(a @ torch.cat([relay_v, v[..., own, :]], dim=-2))
        relay_keys, relay_values = torch.cat(kappa, dim=-2), torch.cat(z, dim=-2)
        number = torch.arange(len(starts), device=q.device).repeat_interleave(r)
        filled = torch.stack([mask[:, s : s + self.unit].any(-1) for s in starts], dim=-1)
        filled = filled.repeat_interleave(r, dim=-1)[:, None, None]
        turned = rotated(relay_keys, number) if self.rope else relay_keys
        sees = filled
        if self.pattern is Pattern.CAUSAL_SELF:
            sees = sees & (number <= number[:, None])
        g = exact_softmax(turned, turned, sees) @ relay_values
        scores = q @ torch.cat([relay_keys, k], dim=-2).mT * q.shape[-1] ** -0.5
        if self.pattern.cross:
            sees = F.pad(filled, (0, length), value=False)
        else:
            place = torch.arange(length, device=q.device)
            unit = place // self.unit
            near = mask[:, None, None] & (unit == unit[lag:, None])
            from_unit = unit[lag:, None]
            if self.pattern is Pattern.CAUSAL_SELF:
                near, from_unit = near & (place <= place[lag:, None]), from_unit - 1
            sees = torch.cat([filled & (number == from_unit), near], dim=-1)
        weights = scores.masked_fill(~sees, -math.inf).softmax(-1).masked_fill(~sees, 0.0)
        return weights @ torch.cat([g, v], dim=-2)

    @prompt_at_positions
    @without_autocast
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """κ and g of the source; or κ and z of the full units, g of the last, and the open unit."""
        length = k.shape[-2]
        (_, k, v), mask = self._prepare(k, k, v, context)
        if self.pattern.cross:
            spread = self._spread(self._gather(k, v, mask))
            return DecodeState(length, {"k": spread.keys, "g": spread.values, "on": spread.filled})
        number = length // self.unit
        start = number * self.unit
        ended = self._gather(k[..., :start, :], v[..., :start, :], mask[:, :start])
        tensors = {"k": k[..., start:, :], "v": v[..., start:, :], "mask": mask[:, start:]}
        tensors |= {"relay_k": ended.keys, "relay_v": ended.values, "filled": ended.filled}
        tensors["number"] = torch.arange(number, device=k.device)
        state = RelayState(length, tensors, unit=number)
        self._pass_on(state)
        return state

    @without_autocast
    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """Read the relays of the source; or close the open unit where the token stands in another
        one, and attend to the token's unit and the relays of the one before.
        """
        dtype, tensors = q_t.dtype, state.tensors
        if k_t is None or v_t is None:
            relays = Relays(tensors["k"], tensors["g"], tensors["on"])
            return self._read(q_t.to(tensors["k"].dtype), relays).to(dtype), state
        assert isinstance(state, RelayState)
        place = state.length
        if context is not None and context.key_positions is not None:
            place = int(context.key_positions.reshape(-1)[0])
        if place // self.unit != state.unit:
            self._close(state, place // self.unit)
        (q_t, k_t, v_t), own = self._prepare(q_t, k_t, v_t, None)
        for name, new, dim in (("k", k_t, -2), ("v", v_t, -2), ("mask", own, -1)):
            tensors[name] = torch.cat([tensors[name], new], dim=dim)
        keys = torch.cat([tensors["before_k"], tensors["k"]], dim=-2)
        values = torch.cat([tensors["before_g"], tensors["v"]], dim=-2)
        sees = torch.cat([tensors["before_on"], tensors["mask"]], dim=-1)[:, None, None]
        out = _softmax(q_t, keys, values, sees)
        state.length = place + 1
        return out.to(dtype), state

    def state_size(self, length: int) -> int:
        """H (D + Dv) numbers for each relay, twice for the last unit's, and for each token of the
        open unit; in cross attention for each relay.
        """
        width = self.spec.heads * (self.spec.head_dim + self.spec.value_dim)
        if self.pattern.cross:
            return width * self.relays * -(-length // self.unit)
        ended = length // self.unit
        return width * (self.relays * (ended + 1) + length % self.unit)

    def flops(self, shape: AttentionShape) -> float:
        """2 B H (2 D + Dv) for each pair of a relay and what it gathers, and 2 B H (D + Dv) for
        each pair of relays, and of query and key.
        """
        rows, width = 2 * shape.batch * shape.heads, shape.head_dim + shape.value_dim
        size = max(1, min(self.unit, shape.length_k))
        relays = self.relays * -(-shape.length_k // size)
        gathered = relays * (size + self.relays) * (shape.head_dim + width)
        seen = relays if self.pattern.cross else size + self.relays
        return rows * (gathered + (relays**2 + shape.length_q * seen) * width)

    def _prepare(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """Float32 at least, and a mask (B, Lk)."""
        mask = k.new_ones(k.shape[0], k.shape[-2], dtype=torch.bool)
        if context is not None and context.key_mask is not None:
            mask = context.key_mask
        dtype = torch.promote_types(v.dtype, torch.float32)
        return (q.to(dtype), k.to(dtype), v.to(dtype)), mask

    def _relays(self, k: Tensor) -> list[Tensor]:
        """R_q, R_k, R_v: (B, H, r, D)."""
        every = (self.relay_q, self.relay_k, self.relay_v)
        return [x.to(k.dtype).expand(len(k), -1, -1, -1) for x in every]

    def _units(self, x: Tensor) -> Tensor:
        """(B, H, n, U, D), zeros behind the last token; one unit where the sequence is shorter."""
        size = max(1, min(self.unit, x.shape[-2]))
        return F.pad(x, (0, 0, 0, -x.shape[-2] % size)).unflatten(2, (-1, size))

    def _unit_mask(self, mask: Tensor) -> Tensor:
        """(B, n, U)."""
        size = max(1, min(self.unit, mask.shape[-1]))
        return F.pad(mask, (0, -mask.shape[-1] % size)).unflatten(1, (-1, size))

    def _gather(self, k: Tensor, v: Tensor, mask: Tensor) -> Relays:
        """κ and z of every unit."""
        own = self._unit_mask(mask)
        count = own.shape[1]
        relay_q, relay_k, relay_v = (
            x[:, :, None].expand(-1, -1, count, -1, -1) for x in self._relays(k)
        )
        keys = torch.cat([relay_k, self._units(k)], dim=-2)
        values = torch.cat([relay_v, self._units(v)], dim=-2)
        sees = F.pad(own, (self.relays, 0), value=True)[:, None, :, None]
        found = _softmax(relay_q, keys, torch.cat([keys, values], dim=-1), sees)
        kappa, z = found.split((k.shape[-1], v.shape[-1]), dim=-1)
        return Relays(kappa, z, own.any(-1))

    def _spread(self, relays: Relays, *, causal: bool = False) -> Relays:
        """κ and g of every unit, over all units or those up to its own."""
        shape = relays.keys.shape[2:4]
        number = torch.arange(shape[0], device=relays.keys.device).repeat_interleave(shape[1])
        turned = self._turned(relays.keys.flatten(2, 3), number)
        sees = relays.filled.repeat_interleave(shape[1], dim=-1)[:, None, None]
        if causal:
            sees = sees & (number <= number[:, None])
        g = _softmax(turned, turned, relays.values.flatten(2, 3), sees)
        return Relays(relays.keys, g.unflatten(2, shape), relays.filled)

    def _read(self, q: Tensor, relays: Relays) -> Tensor:
        """Attention of queries to the relays of all units."""
        sees = relays.filled.repeat_interleave(self.relays, dim=-1)[:, None, None]
        return _softmax(q, relays.keys.flatten(2, 3), relays.values.flatten(2, 3), sees)

    def _turned(self, x: Tensor, numbers: Tensor) -> Tensor:
        return rotated(x, numbers) if self.rope else x

    def _close(self, state: RelayState, unit: int) -> None:
        """Gather the open unit, and begin the unit of that number."""
        tensors = state.tensors
        if tensors["k"].shape[-2]:
            # Zeros fill a unit that the positions leave early.
            missing = self.unit - tensors["k"].shape[-2]
            k, v = (F.pad(tensors[name], (0, 0, 0, missing)) for name in ("k", "v"))
            new = self._gather(k, v, F.pad(tensors["mask"], (0, missing)))
            number = tensors["number"].new_full((1,), state.unit)
            tensors["relay_k"] = torch.cat([tensors["relay_k"], new.keys], dim=2)
            tensors["relay_v"] = torch.cat([tensors["relay_v"], new.values], dim=2)
            tensors["filled"] = torch.cat([tensors["filled"], new.filled], dim=-1)
            tensors["number"] = torch.cat([tensors["number"], number])
            for name, dim in (("k", -2), ("v", -2), ("mask", -1)):
                tensors[name] = tensors[name].narrow(dim, 0, 0)
        state.unit = unit
        self._pass_on(state)

    def _pass_on(self, state: RelayState) -> None:
        """κ and g of the unit before the open one; none where no token was in it."""
        tensors = state.tensors
        count, numbers = len(tensors["number"]), tensors["number"]
        if not count or int(numbers[-1]) != state.unit - 1:
            tensors["before_k"] = tensors["k"][..., :0, :]
            tensors["before_g"] = tensors["v"][..., :0, :]
            tensors["before_on"] = tensors["mask"][:, :0]
            return
        every = numbers.repeat_interleave(self.relays)
        turned = self._turned(tensors["relay_k"].flatten(2, 3), every)
        own = turned[..., len(every) - self.relays :, :]
        sees = tensors["filled"].repeat_interleave(self.relays, dim=-1)[:, None, None]
        tensors["before_k"] = tensors["relay_k"][:, :, -1]
        tensors["before_g"] = _softmax(own, turned, tensors["relay_v"].flatten(2, 3), sees)
        tensors["before_on"] = tensors["filled"][:, -1:].expand(-1, self.relays)


def _of_the_unit_before(relays: Relays) -> Relays:
    """Each unit's are those of its predecessor; the first one has none."""
    keys, values = (F.pad(x, (0, 0, 0, 0, 1, 0))[:, :, :-1] for x in relays[:2])
    return Relays(keys, values, F.pad(relays.filled, (1, 0))[:, :-1])


def _softmax(q: Tensor, k: Tensor, v: Tensor, sees: Tensor) -> Tensor:
    """Fused softmax attention; zeros in a row that sees nothing.

    Args:
        sees: bool, True where a key is seen, broadcastable to the scores.
    """
    if k.shape[-2] == 0:
        return v.new_zeros(*q.shape[:-1], v.shape[-1])
    some = sees.any(-1, keepdim=True)
    mask = sees | ~some
    if q.ndim == 5:
        # One batch of heads and units: what the fused kernels take.
        mask = mask.expand(*q.shape[:3], *mask.shape[3:]).flatten(1, 2)
        out = F.scaled_dot_product_attention(
            q.flatten(1, 2), k.flatten(1, 2), v.flatten(1, 2), attn_mask=mask
        ).unflatten(1, q.shape[1:3])
    else:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return out.masked_fill(~some, 0.0)
