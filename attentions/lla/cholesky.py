"""Exact Local Linear Attention by Cholesky solves, a tile of queries at a time.

The mean-centred form of the estimator: with softmax weights p_ij, kbar_i = sum_j p_ij k_j and

    C_i = sum_j p_ij (k_j - kbar_i)(k_j - kbar_i)^T + ridge I
    x_i = C_i^-1 (q_i - kbar_i)
    a_ij = (k_j - kbar_i)·x_i
    o_i = sum_j p_ij (1 + a_ij) v_j

C_i of a whole tile is one matrix product of the weights with the keys' outer products (the
symmetric half of them). The backward pass differentiates the solve implicitly, so it needs one
more solve with the same matrix and keeps nothing of the forward pass but x and o.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from attentions.spd import solve_spd_

_TILE_WEIGHTS = 1 << 19
"""Weights of a tile, 2 MiB in float32: the tile's work stays in a CPU's cache."""
_TILE_MOMENTS = 1 << 19
"""Entries of a tile's second moments, likewise."""
_TILE_ROWS = 64
"""Fewest query rows of a tile, so that its products stay matrix products."""


@dataclass(frozen=True)
class _Tile:
    """Sequences [first, last) and query rows [start, stop), which see keys [0, keys)."""

    first: int
    last: int
    start: int
    stop: int
    keys: int


class _Problem:
    """One call's inputs, folded to (N, L, D) with N = B H."""

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        key_mask: Tensor | None,
        ridge: Tensor,
        scale: float,
        causal: bool,
    ) -> None:
        self.q, self.k = q, k
        self.key_mask = key_mask
        self.ridge = ridge
        self.scale = scale
        self.causal = causal
        self.lag = k.shape[1] - q.shape[1]
        dim = k.shape[2]
        self.row, self.column = torch.tril_indices(dim, dim, device=k.device)
        self.half = self.row * dim + self.column
        self._outer_of: tuple[int, int] = (0, 0)
        self._outer = k.new_empty(0)

    def tiles(self) -> Iterator[_Tile]:
        """Tiles that cover all queries of all sequences."""
        n, length_q, length_k = self.q.shape[0], self.q.shape[1], self.k.shape[1]
        dim = self.k.shape[2]
        rows = max(1, min(length_q, max(_TILE_ROWS, _TILE_WEIGHTS // max(1, length_k))))
        per_sequence = rows * max(length_k, 1)
        group = min(_TILE_WEIGHTS // per_sequence, _TILE_MOMENTS // (rows * dim * dim))
        group = max(1, min(n, group))
        for first in range(0, n, group):
            last = min(first + group, n)
            for start in range(0, length_q, rows):
                stop = min(start + rows, length_q)
                keys = max(0, stop + self.lag) if self.causal else length_k
                yield _Tile(first, last, start, stop, keys)

    def weights(self, t: _Tile) -> Tensor:
        """(n, rows, keys) softmax weights of a tile; zeros in a row that sees no key."""
        sequences = slice(t.first, t.last)
        q = self.q[sequences, t.start : t.stop]
        scores = torch.bmm(q * self.scale, self.k[sequences, : t.keys].transpose(1, 2))
        hidden = None
        if self.causal:
            query = torch.arange(t.start, t.stop, device=scores.device)[:, None] + self.lag
            hidden = (torch.arange(t.keys, device=scores.device)[None] > query)[None]
        if self.key_mask is not None:
            padding = ~self.key_mask[sequences, None, : t.keys]
            hidden = padding if hidden is None else hidden | padding
        if hidden is None:
            return scores.softmax(-1)
        weights = scores.masked_fill_(hidden, float("-inf")).softmax(-1)
        return weights if self.key_mask is None else weights.masked_fill_(hidden, 0.0)

    def solve(self, t: _Tile, p: Tensor, kbar: Tensor, right: Tensor) -> Tensor:
        """C^-1 right for every row of a tile: (n, rows, D) to (n, rows, D)."""
        n, rows, dim = right.shape
        # The systems of a tile lie side by side in the last axis: (n, D, D, rows).
        mean = kbar.transpose(1, 2)
        second = torch.bmm(self.outer(t), p.transpose(1, 2))
        second.addcmul_(mean[:, self.row], mean[:, self.column], value=-1)
        moments = second.new_empty(n, dim * dim, rows)
        moments[:, self.half] = second
        moments = moments.view(n, dim, dim, rows)
        diagonal = moments.diagonal(dim1=1, dim2=2)
        diagonal += self.ridge[t.first : t.last, None, None]
        return solve_spd_(moments, right.transpose(1, 2).contiguous()).transpose(1, 2)

    def outer(self, t: _Tile) -> Tensor:
        """(n, D (D + 1) / 2, keys) products of key components, kept from tile to tile of the same
        sequences.
        """
        if self._outer_of != (t.first, t.last):
            keys = self.k[t.first : t.last].transpose(1, 2).contiguous()
            self._outer = keys[:, self.row].mul_(keys[:, self.column])
            self._outer_of = (t.first, t.last)
        return self._outer[..., : t.keys]


class _LocalLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        ridge: Tensor,
        key_mask: Tensor | None,
        scale: float,
        causal: bool,
    ) -> Tensor:
        problem = _Problem(q, k, key_mask, ridge, scale, causal)
        out = v.new_empty(q.shape[0], q.shape[1], v.shape[2])
        x = torch.empty_like(q)
        for t in problem.tiles():
            rows = (slice(t.first, t.last), slice(t.start, t.stop))
            keys = (slice(t.first, t.last), slice(0, t.keys))
            p = problem.weights(t)
            kbar = torch.bmm(p, k[keys])
            x[rows] = solved = problem.solve(t, p, kbar, q[rows] - kbar)
            a = torch.bmm(solved, k[keys].transpose(1, 2))
            a += 1.0 - (solved * kbar).sum(-1, keepdim=True)
            out[rows] = torch.bmm(a.mul_(p), v[keys])
        ctx.save_for_backward(q, k, v, ridge, key_mask, x, out)
        ctx.scale, ctx.causal = scale, causal
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, ridge, key_mask, x, out = ctx.saved_tensors
        problem = _Problem(q, k, key_mask, ridge, ctx.scale, ctx.causal)
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        dridge = torch.zeros_like(ridge)
        for t in problem.tiles():
            rows = (slice(t.first, t.last), slice(t.start, t.stop))
            keys = (slice(t.first, t.last), slice(0, t.keys))
            kc, qc, xc, gc = k[keys], q[rows], x[rows], grad[rows]
            p = problem.weights(t)
            kbar = torch.bmm(p, kc)
            # G_ij = g_i·v_j, and T_i = sum_j p_ij G_ij (k_j - kbar_i) is the right-hand side of
            # the implicit solve u_i = C_i^-1 T_i.
            big_g = torch.bmm(gc, v[keys].transpose(1, 2))
            pg = p * big_g
            g_mean = pg.sum(-1, keepdim=True)
            u = problem.solve(t, p, kbar, torch.bmm(pg, kc) - g_mean * kbar)
            lam = ridge[t.first : t.last, None, None]
            h = (u * (qc - kbar - lam * xc)).sum(-1, keepdim=True)
            e = (gc * out[rows]).sum(-1, keepdim=True)
            # a_ij = (k_j - kbar_i)·x_i and b_ij = (k_j - kbar_i)·u_i
            a = torch.bmm(xc, kc.transpose(1, 2)).sub_((xc * kbar).sum(-1, keepdim=True))
            b = torch.bmm(u, kc.transpose(1, 2)).sub_((u * kbar).sum(-1, keepdim=True))
            gap = big_g.sub_(b)
            pa = a.mul_(p)
            weight = p + pa
            logits = (weight * gap).addcmul_(p, h - e).addcmul_(pa, g_mean, value=-1)
            slope = gap.sub_(g_mean).mul_(p)
            dq[rows] = u + ctx.scale * torch.bmm(logits, kc)
            dk[keys] += ctx.scale * torch.bmm(logits.transpose(1, 2), qc)
            dk[keys] += torch.bmm(slope.transpose(1, 2), xc)
            dk[keys] -= torch.bmm(weight.transpose(1, 2), u)
            dv[keys] += torch.bmm(weight.transpose(1, 2), gc)
            dridge[t.first : t.last] -= (u * xc).sum((1, 2))
        return dq, dk, dv, dridge, None, None, None


def local_linear_cholesky(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ridge: Tensor,
    key_mask: Tensor | None = None,
    *,
    scale: float,
    causal: bool,
) -> Tensor:
    """Local Linear Attention, exact, in float32 or float64.

    Args:
        q: (N, Lq, D) queries, N = batch times heads. k: (N, Lk, D). v: (N, Lk, Dv).
        ridge: (N,) positive, relative to the total weight of a row.
        key_mask: (N, Lk) bool, True where valid, or None.
        scale: factor of q·k in the exponent.
        causal: query i sees keys j <= i + Lk - Lq.

    Returns:
        (N, Lq, Dv); zeros in a row that sees no key. Time O(N Lq Lk D^2 / 2), halved again where
        causal; memory besides inputs and outputs O(Lk D^2 / 2) for the outer products of one
        tile's keys.
    """
    apply: Any = _LocalLinear.apply
    return apply(q, k, v, ridge, key_mask, scale, causal)
