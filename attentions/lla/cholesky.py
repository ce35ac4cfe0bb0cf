"""Exact Local Linear Attention by batched Cholesky solves, a chunk of queries at a time.

The mean-centred form of the estimator: with softmax weights p_ij, kbar_i = sum_j p_ij k_j and

    C_i = sum_j p_ij (k_j - kbar_i)(k_j - kbar_i)^T + ridge I
    x_i = C_i^-1 (q_i - kbar_i)
    a_ij = (k_j - kbar_i)·x_i
    o_i = sum_j p_ij (1 + a_ij) v_j

C_i of a whole chunk is one matrix product of the weights with the keys' outer products (the
symmetric half of them). The backward pass differentiates the solve implicitly, so it needs one
more solve with the same matrix and keeps nothing of the forward pass but x and o.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_CHUNK_ELEMENTS = 1 << 20
"""Size of a chunk's weight matrix: 4 MiB in float32, so that it stays in a CPU's cache."""


@dataclass(frozen=True)
class _Chunk:
    """Weights and solves of the query rows [start, stop) against the keys [0, keys)."""

    start: int
    stop: int
    keys: int
    p: Tensor
    kbar: Tensor
    factor: Tensor


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
        row, column = torch.tril_indices(dim, dim, device=k.device)
        self.half = row * dim + column
        self.full = torch.empty(dim, dim, dtype=torch.long, device=k.device)
        order = torch.arange(row.numel(), device=k.device)
        self.full[row, column] = order
        self.full[column, row] = order
        self.outer = k[..., row] * k[..., column]

    def chunks(self) -> list[tuple[int, int, int]]:
        """(start, stop, visible keys) of every chunk of query rows."""
        n, length_q, length_k = self.q.shape[0], self.q.shape[1], self.k.shape[1]
        rows = max(16, _CHUNK_ELEMENTS // max(1, n * length_k))
        bounds = []
        for start in range(0, length_q, rows):
            stop = min(start + rows, length_q)
            bounds.append((start, stop, stop + self.lag if self.causal else length_k))
        return bounds

    def weights(self, start: int, stop: int, keys: int) -> Tensor:
        """(N, rows, keys) softmax weights; zeros in a row that sees no key."""
        scores = torch.bmm(self.q[:, start:stop], self.k[:, :keys].transpose(1, 2))
        scores *= self.scale
        hidden = None
        if self.causal:
            query = torch.arange(start, stop, device=scores.device)[:, None] + self.lag
            hidden = (torch.arange(keys, device=scores.device)[None] > query)[None]
        if self.key_mask is not None:
            padding = ~self.key_mask[:, None, :keys]
            hidden = padding if hidden is None else hidden | padding
        if hidden is None:
            return scores.softmax(-1)
        weights = scores.masked_fill_(hidden, float("-inf")).softmax(-1)
        return weights if self.key_mask is None else weights.masked_fill_(hidden, 0.0)

    def chunk(self, start: int, stop: int, keys: int) -> _Chunk:
        """Weights, mean key and Cholesky factor of C for a chunk."""
        p = self.weights(start, stop, keys)
        kbar = torch.bmm(p, self.k[:, :keys])
        second = torch.bmm(p, self.outer[:, :keys])[..., self.full]
        second -= kbar[..., :, None] * kbar[..., None, :]
        second.diagonal(dim1=-2, dim2=-1).add_(self.ridge[:, None, None])
        factor, _ = torch.linalg.cholesky_ex(second)
        return _Chunk(start, stop, keys, p, kbar, factor)


def _solve(factor: Tensor, right: Tensor) -> Tensor:
    return torch.cholesky_solve(right[..., None], factor)[..., 0]


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
        for bounds in problem.chunks():
            c = problem.chunk(*bounds)
            rows = slice(c.start, c.stop)
            x[:, rows] = solved = _solve(c.factor, q[:, rows] - c.kbar)
            a = torch.bmm(solved, k[:, : c.keys].transpose(1, 2))
            a += 1.0 - (solved * c.kbar).sum(-1, keepdim=True)
            out[:, rows] = torch.bmm(a.mul_(c.p), v[:, : c.keys])
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
        for bounds in problem.chunks():
            c = problem.chunk(*bounds)
            rows, keys = slice(c.start, c.stop), slice(0, c.keys)
            kc, qc, xc, gc, p = k[:, keys], q[:, rows], x[:, rows], grad[:, rows], c.p
            # G_ij = g_i·v_j, and T_i = sum_j p_ij G_ij (k_j - kbar_i), the right-hand side of the
            # implicit solve u_i = C_i^-1 T_i.
            big_g = torch.bmm(gc, v[:, keys].transpose(1, 2))
            pg = p * big_g
            g_mean = pg.sum(-1, keepdim=True)
            u = _solve(c.factor, torch.bmm(pg, kc) - g_mean * c.kbar)
            h = (u * (qc - c.kbar - ridge[:, None, None] * xc)).sum(-1, keepdim=True)
            a = torch.bmm(xc, kc.transpose(1, 2)).sub_((xc * c.kbar).sum(-1, keepdim=True))
            b = torch.bmm(u, kc.transpose(1, 2)).sub_((u * c.kbar).sum(-1, keepdim=True))
            e = (gc * out[:, rows]).sum(-1, keepdim=True)
            gap = big_g.sub_(b)
            weight = p * (1.0 + a)
            logits = weight * gap + p * (h - e - g_mean * a)
            slope = p * (gap - g_mean)
            dq[:, rows] = u + ctx.scale * torch.bmm(logits, kc)
            dk[:, keys] += ctx.scale * torch.bmm(logits.transpose(1, 2), qc)
            dk[:, keys] += torch.bmm(slope.transpose(1, 2), xc)
            dk[:, keys] -= torch.bmm(weight.transpose(1, 2), u)
            dv[:, keys] += torch.bmm(weight.transpose(1, 2), gc)
            dridge -= (u * xc).sum((1, 2))
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
        causal; memory besides inputs and outputs O(N Lk D^2 / 2) for the outer products.
    """
    return _LocalLinear.apply(q, k, v, ridge, key_mask, scale, causal)  # type: ignore[no-untyped-call]
