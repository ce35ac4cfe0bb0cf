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

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from attentions.spd import solve_spd_

_TILE_WEIGHTS = 1 << 21
"""Weights of a tile: 8 MiB in float32, of which a few lie in a CPU's last-level cache."""
_TILE_MOMENTS = 1 << 20
"""Entries of a tile's second moments, likewise."""
_TILE_ROWS = 128
"""Fewest query rows of a tile, so that its products stay matrix products."""


@dataclass(frozen=True)
class _Tile:
    """Sequences [first, last) and query rows [start, stop), which see keys [0, keys)."""

    first: int
    last: int
    start: int
    stop: int
    keys: int

    @property
    def query_rows(self) -> tuple[slice, slice]:
        """Index of the tile's queries in an (N, Lq, ...) tensor."""
        return slice(self.first, self.last), slice(self.start, self.stop)

    @property
    def key_rows(self) -> tuple[slice, slice]:
        """Index of the keys that the tile sees in an (N, Lk, ...) tensor."""
        return slice(self.first, self.last), slice(0, self.keys)


class _Problem:
    """One call's inputs, folded to (N, L, D) with N = B H, and its working memory."""

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
        self._buffers: dict[str, Tensor] = {}

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

    def buffer(self, name: str, t: _Tile) -> Tensor:
        """(n, rows, keys) of working memory, the same from tile to tile: fresh memory would cost
        more in page faults than the arithmetic that fills it.
        """
        shape = (t.last - t.first, t.stop - t.start, t.keys)
        size = math.prod(shape)
        if name not in self._buffers or self._buffers[name].numel() < size:
            self._buffers[name] = self.k.new_empty(size)
        return self._buffers[name][:size].view(shape)

    def product(self, name: str, t: _Tile, rows: Tensor, keys: Tensor) -> Tensor:
        """(n, rows, keys) scalar products of a tile's rows with its keys, in a buffer."""
        return torch.bmm(rows, keys.transpose(1, 2), out=self.buffer(name, t))

    def weights(self, t: _Tile) -> Tensor:
        """(n, rows, keys) softmax weights of a tile; zeros in a row that sees no key."""
        scores = self.product("scores", t, self.q[t.query_rows] * self.scale, self.k[t.key_rows])
        hidden = None
        if self.causal:
            query = torch.arange(t.start, t.stop, device=scores.device)[:, None] + self.lag
            hidden = (torch.arange(t.keys, device=scores.device)[None] > query)[None]
        if self.key_mask is not None:
            padding = ~self.key_mask[t.first : t.last, None, : t.keys]
            hidden = padding if hidden is None else hidden | padding
        if hidden is not None:
            scores.masked_fill_(hidden, float("-inf"))
        weights = torch.softmax(scores, -1, out=self.buffer("weights", t))
        if self.key_mask is not None and hidden is not None:
            # A row without keys is NaN so far.
            weights.masked_fill_(hidden, 0.0)
        return weights

    def moments(self, t: _Tile, p: Tensor) -> tuple[Tensor, Tensor]:
        """Mean key (n, rows, D) and C of every row of a tile, (n, D, D, rows), lower triangle.

        The systems of a tile lie side by side in the last axis.
        """
        n, rows, _ = p.shape
        dim = self.k.shape[2]
        both = torch.bmm(self.outer(t), p.transpose(1, 2))
        second, mean = both[:, :-dim], both[:, -dim:]
        second.addcmul_(mean[:, self.row], mean[:, self.column], value=-1)
        full = second.new_empty(n, dim * dim, rows)
        full[:, self.half] = second
        full = full.view(n, dim, dim, rows)
        diagonal = full.diagonal(dim1=1, dim2=2)
        diagonal += self.ridge[t.first : t.last, None, None]
        return mean.transpose(1, 2), full

    def outer(self, t: _Tile) -> Tensor:
        """(n, D (D + 1) / 2 + D, keys): products of key components, then the keys themselves.

        Kept from tile to tile of the same sequences.
        """
        if self._outer_of != (t.first, t.last):
            keys = self.k[t.first : t.last].transpose(1, 2).contiguous()
            pairs = keys[:, self.row].mul_(keys[:, self.column])
            self._outer = torch.cat([pairs, keys], dim=1)
            self._outer_of = (t.first, t.last)
        return self._outer[..., : t.keys]


def _solve(moments: Tensor, right: Tensor) -> Tensor:
    """C^-1 right for every row of a tile: (n, rows, D)."""
    return solve_spd_(moments, right.transpose(1, 2).contiguous()).transpose(1, 2)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1, keepdim=True)


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
            rows = t.query_rows
            p = problem.weights(t)
            kbar, moments = problem.moments(t, p)
            x[rows] = solved = _solve(moments, q[rows] - kbar)
            a = problem.product("scores", t, solved, k[t.key_rows])
            a += 1.0 - _dot(solved, kbar)
            out[rows] = torch.bmm(a.mul_(p), v[t.key_rows])
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
            rows = t.query_rows
            kc, qc, xc, gc = k[t.key_rows], q[rows], x[rows], grad[rows]
            p = problem.weights(t)
            kbar, moments = problem.moments(t, p)
            # gap_ij starts as G_ij = g_i·v_j; T_i = sum_j p_ij G_ij (k_j - kbar_i) is the
            # right-hand side of the implicit solve u_i = C_i^-1 T_i.
            gap = problem.product("gap", t, gc, v[t.key_rows])
            pg = torch.mul(p, gap, out=problem.buffer("scores", t))
            g_mean = pg.sum(-1, keepdim=True)
            u = _solve(moments, torch.bmm(pg, kc) - g_mean * kbar)
            lam = ridge[t.first : t.last, None, None]
            h = _dot(u, qc - kbar - lam * xc)
            e = _dot(gc, out[rows])
            # gap_ij becomes G_ij - b_ij with b_ij = (k_j - kbar_i)·u_i.
            b = problem.product("scores", t, u, kc)
            gap += _dot(u, kbar)
            gap -= b
            # pa_ij = p_ij a_ij with a_ij = (k_j - kbar_i)·x_i, and weight_ij = p_ij (1 + a_ij).
            pa = problem.product("pa", t, xc, kc).sub_(_dot(xc, kbar)).mul_(p)
            weight = torch.add(p, pa, out=problem.buffer("scores", t))
            dv[t.key_rows].baddbmm_(weight.transpose(1, 2), gc)
            dk[t.key_rows].baddbmm_(weight.transpose(1, 2), u, alpha=-1)
            # d loss / d logits_ij = weight gap + p (h - e) - pa g_mean
            logits = pa.mul_(-g_mean).addcmul_(weight, gap).addcmul_(p, h - e)
            dq[rows] = torch.baddbmm(u, logits, kc, alpha=ctx.scale)
            dk[t.key_rows].baddbmm_(logits.transpose(1, 2), qc, alpha=ctx.scale)
            slope = gap.sub_(g_mean).mul_(p)
            dk[t.key_rows].baddbmm_(slope.transpose(1, 2), xc)
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
