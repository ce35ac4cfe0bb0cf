"""A state that every token decays, corrects and writes to: gated linear attention, delta rules.

    S' = exp(g_t) ∘ S_(t-1),   S_t = S' + k_t (v_t - e_t S')^T,   o_t = q_t S_t

of a matrix S (D, Dv), with decays exp(g) in 0 .. 1, one for all of it or one a row, and e_t what is
erased along k_t before v_t is written: nothing in gated linear attention, beta_t k_t in delta rules
(Yang et al. 2024, arXiv 2406.06484; 2412.06464). A token may do several such writes, of which the
query reads the last state.

Within a chunk what each token writes, u_t = v_t - e_t S', is a triangular system in what the ones
before it write (the WY form of products of Householder matrices):

    u = (1 + A)^-1 (v - (exp(c) ∘ e) S_0),   A_tj = sum_d e_td k_jd exp(c_td - c_jd), j < t

with c the sums of g since the chunk's beginning and S_0 the state there. So u is affine in S_0, and
so is the state that the chunk hands on: all chunks are solved at once, and from chunk to chunk goes
one product of (D, D) matrices. No decay is inverted: only differences c_t - c_j <= 0 are taken to
the exponential, and sums are kept in float64, so that nothing overflows and little is rounded away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.shared.decayed_products import LEAST, decayed_products, products_share
from attentions.shared.decayed_scan import decayed_scan

_CHUNK = 64
"""Writes in a chunk"""
_SHORTEST = 8


@dataclass(frozen=True)
class Writes:
    """What tokens do to the state; L tokens of ``steps`` writes each, in their order."""

    keys: Tensor
    """(B, H, L steps, D) where is written to; zero: nothing"""
    values: Tensor
    """(B, H, L steps, Dv)"""
    decay: Tensor | None = None
    """(B, H, L steps, 1 or D) logarithm g <= 0 of what a write leaves of the state before it"""
    erase: Tensor | None = None
    """(B, H, L steps, D) e"""
    steps: int = 1

    @property
    def length(self) -> int:
        """Tokens."""
        return self.keys.shape[-2] // self.steps

    def tensors(self) -> list[Tensor | None]:
        """All four."""
        return [self.keys, self.values, self.decay, self.erase]

    def with_tensors(self, tensors: list[Tensor | None]) -> Writes:
        """The same with others, in the order of `tensors`."""
        keys, values, decay, erase = tensors
        assert keys is not None
        assert values is not None
        return Writes(keys, values, decay, erase, self.steps)

    def without(self, masked: Tensor) -> Writes:
        """Tokens that are masked, (B, L) bool, do nothing to the state."""
        gone = masked.repeat_interleave(self.steps, -1)[:, None, :, None]
        return self.with_tensors(
            [None if x is None else x.masked_fill(gone, 0.0) for x in self.tensors()]
        )

    def only(self, valid: Tensor) -> Writes:
        """Other tokens than these, (B, L) bool, write and erase nothing, but decay as before."""
        gone = ~valid.repeat_interleave(self.steps, -1)[:, None, :, None]
        return replace(
            self,
            keys=self.keys.masked_fill(gone, 0.0),
            erase=None if self.erase is None else self.erase.masked_fill(gone, 0.0),
        )

    def reversed(self) -> Writes:
        """Tokens from the last to the first; the writes of one in their order."""
        return self.with_tensors(
            [
                None if x is None else x.unflatten(-2, (-1, self.steps)).flip(-3).flatten(-3, -2)
                for x in self.tensors()
            ]
        )


def recurrent_scan(
    q: Tensor | None, writes: Writes, state: Tensor | None = None
) -> tuple[Tensor | None, Tensor]:
    """Outputs after every token, and the last state.

    Args:
        q: (B, H, L, D) in float32 at least, as all tensors are; None: no outputs.
        writes: of L tokens.
        state: (B, H, D, Dv) before the first token; None: zeros.

    Returns:
        (B, H, L, Dv) or None, and (B, H, D, Dv).
    """
    k, v = writes.keys, writes.values
    batch, length = k.shape[:2], writes.length
    if state is None:
        state = k.new_zeros(*batch, k.shape[-1], v.shape[-1])
    if not length:
        return (None if q is None else q @ state), state
    tokens = max(1, _CHUNK // writes.steps)
    if length < tokens:
        tokens = min(tokens, max(_SHORTEST, 1 << (length - 1).bit_length()))
    chunked = writes.with_tensors(
        [None if x is None else _chunks(x, tokens * writes.steps) for x in writes.tensors()]
    )
    rows = None if q is None else _chunks(q, tokens)
    out, last = _scan(rows, chunked, state.flatten(0, 1))
    if out is not None:
        out = out.flatten(1, 2)[:, :length].unflatten(0, batch)
    return out, last.unflatten(0, batch)


def recurrent_step(state: Tensor, writes: Writes) -> Tensor:
    """The state (B, H, D, Dv) after the writes, one after the other."""
    for t in range(writes.keys.shape[-2]):
        k, v = writes.keys[..., t, :, None], writes.values[..., t, None, :]
        if writes.decay is not None:
            state = writes.decay[..., t, :, None].exp() * state
        if writes.erase is not None:
            v = v - writes.erase[..., t, None, :] @ state
        state = state + k * v
    return state


def recurrent_loop(q: Tensor, writes: Writes, state: Tensor | None = None) -> Tensor:
    """Outputs (B, H, L, Dv) token by token: the definition of `recurrent_scan`."""
    if state is None:
        state = q.new_zeros(*q.shape[:2], q.shape[-1], writes.values.shape[-1])
    outputs = [q.new_zeros(*q.shape[:2], 0, writes.values.shape[-1])]
    for t in range(writes.length):
        own = slice(t * writes.steps, (t + 1) * writes.steps)
        tensors = [None if x is None else x[..., own, :] for x in writes.tensors()]
        state = recurrent_step(state, writes.with_tensors(tensors))
        outputs.append(q[..., t : t + 1, :] @ state)
    return torch.cat(outputs, dim=-2)


@dataclass(frozen=True)
class ScanCosts:
    """What the arithmetic of a scan depends on beside its sizes."""

    steps: int = 1
    """Writes of a token"""
    erases: bool = False
    by_channel: bool = False
    """Whether channels decay each by itself"""


def scan_flops(
    length: int, width: int, values: int, costs: ScanCosts, *, outputs: bool = True
) -> float:
    """Of `recurrent_scan` over the tokens of one head, with outputs or to the last state."""
    tokens = max(1, _CHUNK // costs.steps)
    chunk, chunks = tokens * costs.steps, -(-length // tokens)
    # Of a row with all columns, or with those of its block and before.
    pair = width * (products_share(chunk) if costs.by_channel else 1.0)
    total = float(chunk * width * values)
    if costs.erases:
        total += chunk * chunk * (pair + (width + values) / 2)
        total += chunk * width * width + width * width * values
    if outputs:
        total += tokens * (chunk * (pair + values) + width * values)
        total += chunk * width * values if costs.erases else 0.0
    return 2.0 * chunks * total


def _chunks(x: Tensor, size: int) -> Tensor:
    """(B H, chunks, size, ...), filled up with zeros: writes that do nothing."""
    x = F.pad(x, (0, 0, 0, -x.shape[-2] % size))
    return x.flatten(0, 1).unflatten(1, (-1, size))


def _scan(q: Tensor | None, writes: Writes, state: Tensor) -> tuple[Tensor | None, Tensor]:
    """Of (N, M, C, ...) chunks."""
    k, v, erase, n = writes.keys, writes.values, writes.erase, writes.steps
    since, to_end, kept, at_rows = None, None, None, None
    if writes.decay is not None:
        since = writes.decay.double().clamp(min=LEAST).cumsum(-2)
        at_rows = since[..., n - 1 :: n, :]
        to_end = (since[..., -1:, :] - since).to(k.dtype).exp()
        kept = since[..., -1, :].to(k.dtype).exp()
    at_end = k if to_end is None else k * to_end
    within_rows, products = None, None
    if erase is not None:
        within_rows, products = _systems(q, writes, since)
    elif q is not None:
        (within_rows,) = decayed_products([q], k, at_rows, since, _not_later(k)[n - 1 :: n])
    written, moved = v, None
    if products is not None:
        assert erase is not None
        # What is written is `written` less `moved` times the state at the beginning.
        right = torch.cat([v, _decayed(erase, since)], dim=-1)
        solved = torch.linalg.solve_triangular(products, right, upper=False, unitriangular=True)
        written, moved = solved.split([v.shape[-1], k.shape[-1]], dim=-1)
    states, last = _passed_on(at_end.mT @ written, at_end, moved, kept, state)
    if q is None:
        return None, last
    if moved is not None:
        written = written - moved @ states
    assert within_rows is not None
    return within_rows @ written + _decayed(q, at_rows) @ states, last


def _systems(
    q: Tensor | None, writes: Writes, since: Tensor | None
) -> tuple[Tensor | None, Tensor]:
    """Products of queries with the keys that they see, and of what erases with those before it."""
    k, erase, n = writes.keys, writes.erase, writes.steps
    assert erase is not None
    before = _not_later(k)
    if n == 1 and q is not None:
        rows, products = decayed_products([q, erase], k, since, since, before)
        return rows, products
    (products,) = decayed_products([erase], k, since, since, before)
    if q is None:
        return None, products
    at_rows = None if since is None else since[..., n - 1 :: n, :]
    (rows,) = decayed_products([q], k, at_rows, since, before[n - 1 :: n])
    return rows, products


def _not_later(k: Tensor) -> Tensor:
    """(C, C) bool: which of a chunk's writes are none after another."""
    return torch.ones(k.shape[-2], k.shape[-2], dtype=torch.bool, device=k.device).tril()


def _decayed(x: Tensor, since: Tensor | None) -> Tensor:
    return x if since is None else x * since.to(x.dtype).exp()


def _passed_on(
    added: Tensor, at_end: Tensor, moved: Tensor | None, kept: Tensor | None, state: Tensor
) -> tuple[Tensor, Tensor]:
    """States (N, M, D, Dv) at the beginning of every chunk, and the last one."""
    if moved is None:
        decay = added.new_ones(1, 1, 1, 1) if kept is None else kept[..., None]
        states = decayed_scan(decay.expand(*added.shape[:2], -1, 1), added, state)
        return torch.cat([state[:, None], states[:, :-1]], dim=1), states[:, -1]
    turn = -(at_end.mT @ moved)
    if kept is None:
        turn = turn + torch.eye(turn.shape[-1], dtype=turn.dtype, device=turn.device)
    else:
        turn = turn + torch.diag_embed(kept.expand(*kept.shape[:-1], turn.shape[-1]))
    entering = []
    for own, turned in zip(added.unbind(1), turn.unbind(1), strict=True):
        entering.append(state)
        state = torch.baddbmm(own, turned, state)
    return torch.stack(entering, dim=1), state
