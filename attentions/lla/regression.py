"""Local regression in torch: the forward pass, and the backward pass by implicit differentiation.

With softmax weights p_ij of the logits, regressors f_j = f(k_j) and the query's own f(q_i), the
mean-centred form of the estimator is

    fbar_i = sum_j p_ij f_j
    C_i = sum_j p_ij (f_j - fbar_i)(f_j - fbar_i)^T + penalty_i
    x_i = C_i^-1 (f(q_i) - fbar_i)
    o_i = sum_j p_ij (1 + a_ij) v_j,    a_ij = (f_j - fbar_i)·x_i

f is the identity in Local Linear Attention. The backward pass differentiates the solve
implicitly: it solves once more with the same matrix and keeps nothing of the forward pass but x
and o. With g = dL/do and G_ij = g_i·v_j,

    u_i = C_i^-1 T_i,   T_i = sum_j p_ij G_ij (f_j - fbar_i)
    c_ij = G_ij - sum_l p_il G_il - (f_j - fbar_i)·u_i
    dL/dlogit_ij = p_ij ((1 + a_ij) c_ij + s_i),    s_i such that a row sums to zero
    df(q_i) = u_i
    df_j = sum_i p_ij c_ij x_i - p_ij (1 + a_ij) u_i
    dv_j = sum_i p_ij (1 + a_ij) g_i
    dridge = -sum_i u_i^T (dpenalty_i / dridge) x_i

A probe is the same with x given instead of solved for: u = 0, and T is the gradient of x.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from attentions.lla.basis import Basis
from attentions.lla.penalty import Penalty, penalty_of
from attentions.lla.tiles import Block, Tile, Tiles
from attentions.shared.autocast import without_autocast
from attentions.shared.compiled import uncompiled
from attentions.shared.first_order import first_derivatives_only


class System(Protocol):
    """The matrices C_i of one tile."""

    mean: Tensor
    """(n, rows, F) fbar."""

    def solve(self, right: Tensor) -> Tensor:
        """C_i^-1 right_i for every row, (n, rows, F); once only."""


class Solver(Protocol):
    """Makes the systems of one call."""

    residual: Tensor | None
    """Largest true relative residual |right - C x| / |right| so far, where it is not exact."""

    def system(self, t: Tile, p: list[Tensor]) -> System:
        """C_i of a tile from the softmax weights (n, rows, keys) of its blocks."""


SolverFactory = Callable[[Tiles, Tensor, Penalty, Basis], Solver]
"""From the tiles, the regressors (N, Lk, F), the penalty and the basis to a solver of one call."""


class Settings(NamedTuple):
    """What a call needs beside its tensors."""

    key_mask: Tensor | None
    scale: float
    causal: bool
    solver: SolverFactory
    system: int
    """Numbers per query row that the solver builds."""
    basis: Basis
    watch: Callable[[Tensor, str], None] | None = None
    """Told the residuals of an iterative solver, and of what."""

    def report(self, solver: Solver, what: str) -> None:
        """Tell the watcher, if there is one, how the solves went."""
        if self.watch is not None and solver.residual is not None:
            self.watch(solver.residual, what)

    def tiles(self, q: Tensor, k: Tensor) -> Tiles:
        """Tiles of the call."""
        return Tiles(q, k, self.key_mask, scale=self.scale, causal=self.causal, system=self.system)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """(..., 1) scalar products of rows."""
    return (a * b).sum(-1, keepdim=True)


def mean_regressors(t: Tile, p: list[Tensor], f: Tensor) -> Tensor:
    """(n, rows, F) fbar of a tile."""
    means = [torch.bmm(w, f[b.key_rows]) for b, w in zip(t.blocks, p, strict=True)]
    return torch.cat(means, dim=1)


def corrected_weights(
    tiles: Tiles, b: Block, p: Tensor, f: Tensor, mean: Tensor, x: Tensor
) -> Tensor:
    """(n, rows, keys) p_ij (1 + (f_j - fbar_i)·x_i) of a block, in the buffer "block"."""
    return tiles.product("block", b, x, f[b.key_rows], 1.0 - dot(x, mean)).mul_(p)


def corrected_output(
    tiles: Tiles, t: Tile, p: list[Tensor], f: Tensor, mean: Tensor, x: Tensor, v: Tensor
) -> Tensor:
    """(n, rows, Dv) sums of the values by their corrected weights."""
    out = v.new_empty(*x.shape[:2], v.shape[2])
    for (b, own), weights in zip(t.parts(), p, strict=True):
        corrected = corrected_weights(tiles, b, weights, f, mean[own], x[own])
        torch.bmm(corrected, v[b.key_rows], out=out[own])
    return out


class RowGradients:
    """Gradients of one call, accumulated tile by tile; those of keys lie transposed, (N, C, Lk),
    in which form their products are fastest on a CPU.
    """

    def __init__(self, tiles: Tiles, f: Tensor, v: Tensor) -> None:
        """Start from zero."""
        self.tiles, self.f, self.v = tiles, f, v
        self.same = f is tiles.k
        self.dq = torch.zeros_like(tiles.q)
        self.dk = torch.zeros_like(tiles.k.transpose(1, 2), memory_format=torch.contiguous_format)
        self.df = self.dk if self.same else self.dk.new_zeros(f.shape[0], f.shape[2], f.shape[1])
        self.dv = self.dk.new_zeros(v.shape[0], v.shape[2], v.shape[1])

    def right(self, t: Tile, p: list[Tensor], g: Tensor, out: Tensor, mean: Tensor) -> Tensor:
        """(n, rows, F) T of a tile; leaves G_ij - sum_l p_il G_il in the buffers "gap"."""
        # g·o is close to that sum; taking it out first keeps a common offset of the values,
        # and the rounding that comes with it, out of T.
        guess = -dot(g, out)
        right = torch.empty_like(mean)
        gaps = self.tiles.buffers("gap", t)
        for (b, own), weights, gap in zip(t.parts(), p, gaps, strict=True):
            v = self.v[b.key_rows].transpose(1, 2)
            torch.baddbmm(guess[own], g[own], v, out=gap)
            pg = torch.mul(weights, gap, out=self.tiles.buffer("block", *gap.shape))
            excess = pg.sum(-1, keepdim=True)
            gap -= excess
            right[own] = torch.bmm(pg, self.f[b.key_rows]).addcmul_(excess, mean[own], value=-1)
        return self.tiles.without_lone_keys(t, right)

    def add(
        self, t: Tile, p: list[Tensor], g: Tensor, mean: Tensor, x: Tensor, u: Tensor | None
    ) -> None:
        """Add a tile's share, after `right` of the same tile; u None stands for zero."""
        gaps = self.tiles.buffers("gap", t)
        for (b, own), weights, gap in zip(t.parts(), p, gaps, strict=True):
            step = None if u is None else u[own]
            self._add_block(b, weights, gap, g[own], mean[own], x[own], step)

    def _add_block(
        self, b: Block, p: Tensor, c: Tensor, g: Tensor, mean: Tensor, x: Tensor, u: Tensor | None
    ) -> None:
        tiles, keys = self.tiles, (b.sequences, slice(None), slice(0, b.keys))
        if u is not None:
            c.baddbmm_(u, self.f[b.key_rows].transpose(1, 2), alpha=-1).add_(dot(u, mean))
        weight = corrected_weights(tiles, b, p, self.f, mean, x)
        self.dv[keys].baddbmm_(g.transpose(1, 2), weight)
        if u is not None:
            self.df[keys].baddbmm_(u.transpose(1, 2), weight, alpha=-1)
        logits = weight.mul_(c)
        logits.addcmul_(p, logits.sum(-1, keepdim=True), value=-1)
        self.df[keys].baddbmm_(x.transpose(1, 2), c.mul_(p))
        self.dk[keys].baddbmm_(tiles.scaled[b.query_rows].transpose(1, 2), logits)
        self.dq[b.query_rows] = torch.bmm(logits, tiles.k[b.key_rows]).mul_(tiles.scale)

    def keys(self) -> tuple[Tensor, Tensor | None, Tensor]:
        """Gradients of k, f (None where f is k: it is in that of k) and v."""
        df = None if self.same else self.df.transpose(1, 2)
        return self.dk.transpose(1, 2), df, self.dv.transpose(1, 2)


class _LocalRegression(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        at: Tensor,
        f: Tensor,
        v: Tensor,
        ridge: Tensor,
        shift: Tensor | None,
        settings: Settings,
    ) -> Tensor:
        tiles = settings.tiles(q, k)
        penalty = penalty_of(ridge, shift, settings.basis)
        solver = settings.solver(tiles, f, penalty, settings.basis)
        out = v.new_empty(q.shape[0], q.shape[1], v.shape[2])
        x = torch.empty_like(at)
        for t in tiles:
            p = tiles.weights(t)
            system = solver.system(t, p)
            right = tiles.without_lone_keys(t, at[t.query_rows] - system.mean)
            x[t.query_rows] = solved = system.solve(right)
            out[t.query_rows] = corrected_output(tiles, t, p, f, system.mean, solved, v)
        settings.report(solver, "output")
        ctx.save_for_backward(q, k, f, v, ridge, shift, x, out)
        ctx.settings = settings
        ctx.same = f is k
        return out

    @staticmethod
    @first_derivatives_only
    @without_autocast
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, f, v, ridge, shift, x, out = ctx.saved_tensors
        if ctx.same:
            f = k
        tiles = ctx.settings.tiles(q, k)
        penalty = penalty_of(ridge, shift, ctx.settings.basis)
        solver = ctx.settings.solver(tiles, f, penalty, ctx.settings.basis)
        gradients = RowGradients(tiles, f, v)
        dat = torch.empty_like(x)
        for t in tiles:
            g, solved = grad[t.query_rows], x[t.query_rows]
            p = tiles.weights(t)
            system = solver.system(t, p)
            u = system.solve(gradients.right(t, p, g, out[t.query_rows], system.mean))
            dat[t.query_rows] = u
            gradients.add(t, p, g, system.mean, solved, u)
        ctx.settings.report(solver, "gradients")
        dk, df, dv = gradients.keys()
        dridge, dshift = penalty.gradient(dat, x)
        return gradients.dq, dk, dat, df, dv, dridge, dshift, None


@uncompiled
@without_autocast
def local_regression(
    q: Tensor,
    k: Tensor,
    at: Tensor,
    f: Tensor,
    v: Tensor,
    ridge: Tensor,
    shift: Tensor | None,
    settings: Settings,
) -> Tensor:
    """Local regression of v on f(k) around each query, read off at the query.

    Args:
        q: (N, Lq, D) queries of the logits, N = batch times heads. k: (N, Lk, D).
        at: (N, Lq, F) the query's regressors f(q). f: (N, Lk, F); may be k itself.
        v: (N, Lk, Dv).
        ridge: (N,) positive, relative to the total weight of a row.
        shift: see `attentions.lla.penalty.penalty_of`.
        settings: masks, logit scale, solver.

    Returns:
        (N, Lq, Dv); zeros in a row that sees no key.
    """
    apply: Any = _LocalRegression.apply
    return apply(q, k, at, f, v, ridge, shift, settings)
