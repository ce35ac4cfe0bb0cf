"""Causal attention through running softmax means, in linear time and memory.

Slot r of a memory holds, at token t, the mean of the prefix under its control logits; a query mixes
the slots:

    K_tr = sum_{j<=t} e^{a_jr} k_j / sum_{j<=t} e^{a_jr},   a_j = k_j W_k;   V_tr likewise from v
    o_t = sum_r p_tr V_tr,   p_t = softmax_r(q_t·K_tr)

No K_tr is ever formed. The sequence is cut into chunks, and with top_r the largest logit up to the
end of a chunk, E_jr = e^{a_jr - top_r} and Z_tr = sum_{j<=t} E_jr,

    q_t·K_tr = (sum_{j<=t, in chunk} (q_t·k_j) E_jr + q_t·S_r) / Z_tr
    o_t = sum_{j<=t, in chunk} (sum_r p_tr/Z_tr E_jr) v_j + sum_r p_tr/Z_tr S_r

where S_r sums E_jr k_j (or E_jr v_j) over the tokens before the chunk: matrix products within the
chunk, and a small state from one to the next. No exponent is positive. Z_tr is small for early
tokens of a chunk in which the logits grow; where it could underflow, the tokens are cut into
shorter chunks, down to one token, in which Z_tr >= 1.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.shared.first_order import first_derivatives_only

_SEGMENT = 256
"""Tokens that are processed at a time: few enough for a CPU's cache."""
CHUNK = 32
"""The longest chunk; a power of two that divides the segment."""


def causal_slot_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    control_k: Tensor,
    control_v: Tensor,
    mask: Tensor | None,
    scale: float,
) -> Tensor:
    """Every query reads the slots as they stand after its own token.

    Args:
        q: (N, L, D). k: (N, L, D). v: (N, L, Dv); all in float32 or float64.
        control_k: (N, D, r). control_v: (N, Dv, r).
        mask: (N, L) bool, True where the token is written to the slots, or None.
        scale: of the products of queries and key slots.

    Returns:
        (N, L, Dv); zeros before the first token that is written.
    """
    out: Tensor = _CausalSlots.apply(  # type: ignore[no-untyped-call]  # apply is not annotated in torch
        q, k, v, control_k, control_v, mask, scale
    )
    return out


class _State(NamedTuple):
    """A memory between two segments, in units of e^top."""

    sums: Tensor
    """(N, r, D)"""
    mass: Tensor
    """(N, r)"""
    top: Tensor
    """(N, r) the largest logit so far"""


def _empty_state(x: Tensor, control: Tensor) -> _State:
    n, slots = x.shape[0], control.shape[-1]
    # A finite lower bound instead of -inf, whose difference to itself is NaN.
    lowest = torch.finfo(x.dtype).min
    return _State(
        x.new_zeros(n, slots, x.shape[-1]),
        x.new_zeros(n, slots),
        x.new_full((n, slots), lowest),
    )


class _Memory:
    """The keys or values of a segment: how they are written to the slots, and read."""

    def __init__(self, x: Tensor, control: Tensor, mask: Tensor | None, state: _State) -> None:
        self.x, self.control, self.masked, self.state = x, control, mask is not None, state
        self.logits = x @ control
        if mask is not None:
            self.logits.masked_fill_(~mask[..., None], -math.inf)

    def fits(self, chunk: int) -> bool:
        """Whether Z_tr stays well above the smallest normal number in chunks of that length."""
        before, top, logits = self._tops(chunk)
        if self.masked:
            logits = logits.masked_fill(logits == -math.inf, math.inf)
        growth = (top - torch.maximum(before, logits.amin(2))).max().item()
        # What underflows beside the smallest Z_tr is then far below its rounding error.
        return growth <= -0.6 * math.log(torch.finfo(logits.dtype).tiny)

    def write_in(self, chunk: int) -> None:
        """Fill in what depends on the length c of the n chunks."""
        before, top, logits = self._tops(chunk)
        self.chunks = self.x.unflatten(1, (-1, chunk))
        """(N, n, c, D)"""
        self.decay = (before - top).exp_()
        """(N, n, r) from the units of a chunk's predecessor to its own"""
        self.write = (logits - top[:, :, None]).exp_()
        """(N, n, c, r) E_jr"""
        mass = self.write.cumsum(2)
        self.sums, last_sums = _scan(self.write.mT @ self.chunks, self.decay, self.state.sums)
        """(N, n, r, D) S_r before each chunk, in the chunk's units"""
        earlier, last = _scan(mass[:, :, -1, :, None], self.decay, self.state.mass[..., None])
        mass += earlier.mT
        self.read = mass.reciprocal()
        """(N, n, c, r) 1 / Z_tr"""
        if self.masked:
            # Before the first token there is nothing to read, not even a mean.
            self.read.masked_fill_(mass == 0, 0.0)
        self.after = _State(last_sums, last[..., 0], top[:, -1])

    def _tops(self, chunk: int) -> tuple[Tensor, Tensor, Tensor]:
        """(N, n, r): the largest logit before each chunk, and up to its end; and the logits."""
        logits = self.logits.unflatten(1, (-1, chunk))
        first = self.state.top[:, None]
        top = torch.maximum(logits.amax(2), first).cummax(1).values
        return torch.cat([first, top[:, :-1]], dim=1), top, logits

    def backward(
        self,
        grad_x: Tensor,
        grad_write: Tensor,
        grad_sums: Tensor,
        grad_mass: Tensor,
        after: _State,
    ) -> tuple[Tensor, Tensor, _State]:
        """Gradients of the tokens, the control matrix and the state before the segment.

        Args:
            grad_x: (N, n, c, D) what the chunk's own queries contribute; changed in place.
            grad_write: (N, n, c, r) likewise to E_jr; changed in place.
            grad_sums: (N, n, r, D) gradient of ``sums``.
            grad_mass: (N, n, c, r) gradient of Z_tr.
            after: gradient of the state after the segment.
        """
        chunk_mass = grad_mass.sum(2)[..., None]
        sums, first_sums = _scan_backward(grad_sums, self.decay, after.sums)
        mass, first_mass = _scan_backward(chunk_mass, self.decay, after.mass[..., None])
        grad_write += self.chunks @ sums.mT
        grad_write += mass.mT
        # A product with ones rather than a difference of cumulative sums: tokens after the last
        # query with a gradient get exactly none.
        chunk = self.chunks.shape[2]
        grad_write += grad_mass.new_ones(chunk, chunk).triu() @ grad_mass
        grad_logits = grad_write.mul_(self.write).flatten(1, 2)
        grad_x += self.write @ sums
        grad_x = grad_x.flatten(1, 2).baddbmm_(grad_logits, self.control.mT)
        before = _State(first_sums, first_mass[..., 0], after.top)
        return grad_x, self.x.mT @ grad_logits, before


class _Segment:
    """What both passes compute from a segment of whole chunks; q is scaled already."""

    def __init__(self, q: Tensor, keys: _Memory, values: _Memory, chunk: int) -> None:
        keys.write_in(chunk)
        values.write_in(chunk)
        self.keys, self.values, self.chunk = keys, values, chunk
        self.q = q.unflatten(1, (-1, chunk))
        self.products = (self.q @ keys.chunks.mT).tril_()
        scores = self.products @ keys.write
        scores += self.q @ keys.sums.mT
        self.scores = scores.mul_(keys.read)
        self.p = self.scores.softmax(-1)
        self.shares = self.p * values.read
        self.weights = (self.shares @ values.write.mT).tril_()

    def output(self) -> Tensor:
        """(N, nc, Dv)"""
        out = self.weights @ self.values.chunks
        out += self.shares @ self.values.sums
        return out.flatten(1, 2)

    def backward(self, g: Tensor, after: list[_State]) -> tuple[list[Tensor], list[_State]]:
        """Gradients of q, k, v, both control matrices and both states before the segment."""
        keys, values = self.keys, self.values
        g = g.unflatten(1, self.q.shape[1:3])
        grad_weights = (g @ values.chunks.mT).tril_()
        grad_shares = grad_weights @ values.write
        grad_shares += g @ values.sums.mT
        v, control_v, before_v = values.backward(
            self.weights.mT @ g,
            grad_weights.mT @ self.shares,
            self.shares.mT @ g,
            (self.shares * grad_shares).mul_(values.read).neg_(),
            after[1],
        )
        grad_p = grad_shares.mul_(values.read)
        own = (grad_p * self.p).sum(-1, keepdim=True)
        grad_scores = grad_p.sub_(own).mul_(self.p)
        grad_mass = (grad_scores * self.scores).mul_(keys.read).neg_()
        grad_scores.mul_(keys.read)
        grad_products = (grad_scores @ keys.write.mT).tril_()
        k, control_k, before_k = keys.backward(
            grad_products.mT @ self.q,
            self.products.mT @ grad_scores,
            grad_scores.mT @ self.q,
            grad_mass,
            after[0],
        )
        q = grad_products @ keys.chunks
        q += grad_scores @ keys.sums
        return [q.flatten(1, 2), k, v, control_k, control_v], [before_k, before_v]


class _CausalSlots(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        control_k: Tensor,
        control_v: Tensor,
        mask: Tensor | None,
        scale: float,
    ) -> Tensor:
        inputs, out = (q, k, v, control_k, control_v, mask), torch.empty_like(v)
        states = [_empty_state(k, control_k), _empty_state(v, control_v)]
        saved: list[Tensor] = []
        ctx.chunks = []
        for part in _parts(q.shape[1]):
            saved += [*states[0], *states[1]]
            segment = _segment(inputs, part, scale, states)
            out[:, part] = segment.output()[:, : part.stop - part.start]
            states = [segment.keys.after, segment.values.after]
            ctx.chunks.append(segment.chunk)
        ctx.save_for_backward(*inputs, *saved)
        ctx.scale = scale
        return out

    @staticmethod
    @first_derivatives_only
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, saved = ctx.saved_tensors[:6], ctx.saved_tensors[6:]
        tokens = [torch.empty_like(x) for x in inputs[:3]]
        controls = [torch.zeros_like(x) for x in inputs[3:5]]
        states = [_State(*map(torch.zeros_like, saved[i : i + 3])) for i in (0, 3)]
        for index, part in reversed(list(enumerate(_parts(inputs[0].shape[1])))):
            entering = saved[6 * index : 6 * index + 6]
            before = [_State(*entering[:3]), _State(*entering[3:])]
            segment = _segment(inputs, part, ctx.scale, before, ctx.chunks[index])
            found, states = segment.backward(_whole_chunks(gradients[0][:, part]), states)
            found[0].mul_(ctx.scale)
            for whole, piece in zip(tokens, found[:3], strict=True):
                whole[:, part] = piece[:, : part.stop - part.start]
            for whole, piece in zip(controls, found[3:], strict=True):
                whole += piece
        return (*tokens, *controls, None, None)


def _parts(length: int) -> list[slice]:
    return [slice(i, min(i + _SEGMENT, length)) for i in range(0, length, _SEGMENT)]


def _segment(
    inputs: tuple[Tensor, ...] | Any,
    part: slice,
    scale: float,
    states: list[_State],
    chunk: int = 0,
) -> _Segment:
    """One segment of the inputs; the length of its chunks is sought if not given."""
    q, k, v, control_k, control_v, mask = inputs
    padding = (part.start - part.stop) % CHUNK
    if mask is None and padding:
        mask = q.new_ones(q.shape[:2], dtype=torch.bool)
    if mask is not None:
        mask = F.pad(mask[:, part], (0, padding))
    keys = _Memory(_whole_chunks(k[:, part]), control_k, mask, states[0])
    values = _Memory(_whole_chunks(v[:, part]), control_v, mask, states[1])
    if not chunk:
        chunk = CHUNK
        while chunk > 1 and not (keys.fits(chunk) and values.fits(chunk)):
            chunk //= 2
    return _Segment(_whole_chunks(q[:, part] * scale), keys, values, chunk)


def _whole_chunks(x: Tensor) -> Tensor:
    """Contiguous, and filled up with zeros."""
    padding = -x.shape[1] % CHUNK
    return F.pad(x, (0, 0, 0, padding)) if padding else x.contiguous()


def _scan(own: Tensor, decay: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """State before each chunk, in the chunk's units, and after the last.

    Args:
        own: (N, n, r, D) what each chunk adds.
        decay: (N, n, r) of what was there before it.
        state: (N, r, D) before the first.
    """
    before = torch.empty_like(own)
    for i in range(own.shape[1]):
        torch.mul(state, decay[:, i, :, None], out=before[:, i])
        state = before[:, i] + own[:, i]
    return before, state


def _scan_backward(gradient: Tensor, decay: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of ``own`` and of the first state from those of ``before`` and the last state."""
    own = torch.empty_like(gradient)
    for i in reversed(range(gradient.shape[1])):
        own[:, i] = after
        after = (after + gradient[:, i]).mul_(decay[:, i, :, None])
    return own, after
