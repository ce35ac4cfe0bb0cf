"""Solutions of the ridge systems that a decaying Gram matrix makes, one for each token.

    (G_t + diag(λ)) x_t = q_t,   G_t = exp(g_t) G_(t-1) + w_t k_t^T

with w_t = beta_t k_t, and in noncausal self attention the matrix of the tokens behind added. All
matrices of a sequence would be O(L D^2) numbers, so tokens are done a segment at a time: the
matrices at its borders come from products, those within from a scan, and the backward pass makes
them again. Each system is solved by Cholesky's factorisation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attentions.shared.decayed_scan import decayed_scan
from attentions.shared.recompute import recomputed

_NUMBERS = 1 << 22
"""Of the matrices of a segment"""


def spd_solve(matrix: Tensor, right: Tensor) -> Tensor:
    """(..., D, n) solutions of symmetric positive definite (..., D, D) systems."""
    apply: Any = _Solve.apply  # not annotated in torch
    solution: Tensor = apply(matrix, right)
    return solution


def ridge_scan(q: Tensor, directions: list[tuple[Tensor, Tensor, Tensor]], ridge: Tensor) -> Tensor:
    """X of every token.

    Args:
        q: (B, H, L, D) right-hand sides.
        directions: keys k and w, both (B, H, L, D), and g (B, H, L, 1): of the tokens up to each
            and, if there are two, of those behind it.
        ridge: (H, D) λ, above zero.

    Returns:
        (B, H, L, D)
    """
    rows = q.shape[0] * q.shape[1]
    size = max(1, _NUMBERS // (rows * q.shape[-1] ** 2))
    parts = [slice(first, first + size) for first in range(0, q.shape[-2], size)]
    flat = [[x.flatten(0, 1) for x in own] for own in directions]
    state = q.new_zeros(rows, q.shape[-1], q.shape[-1])
    before, behind, state_behind = [], [], state
    for part in parts:
        before.append(state)
        state = _handed_on([x[:, part] for x in flat[0]], state)
    if len(flat) > 1:
        for part in reversed(parts):
            behind.append(state_behind)
            state_behind = _handed_on([x[:, part].flip(1) for x in flat[1]], state_behind)
        behind.reverse()
    diagonal = ridge.repeat(q.shape[0], 1)[:, None]
    solutions = []
    for i, part in enumerate(parts):
        own = [x[:, part] for y in flat for x in y]
        states = [before[i], *behind[i : i + 1]]
        solutions.append(recomputed(_solved, q.flatten(0, 1)[:, part], diagonal, *own, *states))
    return torch.cat(solutions, dim=1).unflatten(0, q.shape[:2]) if parts else q


def last_gram(k: Tensor, w: Tensor, decay: Tensor) -> Tensor:
    """(B, H, D, D) the matrix after the last token, of (B, H, L, D) keys and (B, H, L, 1) g."""
    flat = [x.flatten(0, 1) for x in (k, w, decay)]
    state = k.new_zeros(flat[0].shape[0], k.shape[-1], k.shape[-1])
    return _handed_on(flat, state).unflatten(0, k.shape[:2])


def _handed_on(tokens: list[Tensor], state: Tensor) -> Tensor:
    """The matrix after some tokens (k, w, g)."""
    k, w, decay = tokens
    since = decay.double().cumsum(1)
    if not since.shape[1]:
        return state
    left = (since[:, -1:] - since).to(k.dtype).exp()
    return since[:, -1:].to(k.dtype).exp() * state + (left * w).mT @ k


def _solved(q: Tensor, diagonal: Tensor, *tensors: Tensor) -> Tensor:
    """Of one segment: k, w, g of each direction, and then the matrices that come in."""
    count = len(tensors) // 4
    gram = torch.diag_embed(diagonal.expand_as(q))
    for direction in range(count):
        k, w, decay = tensors[3 * direction : 3 * direction + 3]
        state = tensors[3 * count + direction]
        if direction:
            k, w, decay = k.flip(1), w.flip(1), decay.flip(1)
        states = decayed_scan(decay[..., None].exp(), w[..., None] * k[..., None, :], state)
        if direction:
            # Behind a token: as the one after it has left the matrix.
            states = torch.cat([state[:, None], states[:, :-1]], dim=1).flip(1)
        gram = gram + states
    return spd_solve(gram, q[..., None])[..., 0]


class _Solve(torch.autograd.Function):
    """Has derivatives of every order."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, right: Tensor) -> Tensor:
        factor, failed = torch.linalg.cholesky_ex(matrix)
        solution = torch.cholesky_solve(right, factor)
        solution = solution.masked_fill((failed != 0)[..., None, None], float("nan"))
        ctx.save_for_backward(matrix, factor, solution)
        return solution

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        matrix, factor, solution = ctx.saved_tensors
        if torch.is_grad_enabled():
            back = spd_solve(matrix, grad)
        else:
            back = torch.cholesky_solve(grad, factor)
        return -back @ solution.mT, back
