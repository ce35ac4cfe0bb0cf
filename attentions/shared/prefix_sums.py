"""Linear attention: sums of values under products of features, over all keys or up to each query.

    o_i = sum_j w_ij v_j / max(sum_j w_ij, floor),   w_ij = (q_i·k_j) cos(a_i - a_j) >= 0

over the keys j that row i sees; q and k are features, and the angles a of positions are optional.
As cos(a - b) = cos a cos b + sin a sin b, features turned by the angle of their position, x to
[x cos a, x sin a], make w a plain product. So the sums over keys factor:

    sum_j w_ij v_j = q_i·S_i,   S_i = sum_j k_j v_j^T,   sum_j w_ij = q_i·z_i,   z_i = sum_j k_j

Noncausally S and z are sums over all keys. Causally they are prefix sums, taken once per chunk of
keys; within a chunk the weights are written out (as in Hua et al. 2022, arXiv 2202.10447), where
the cosine is a factor of each weight and the features need not be turned. For R features that is
O(L R (Dv + chunk)) time. The backward pass reads one S per chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.first_order import first_derivatives_only
from cab import AttentionShape

_CHUNK = 64
"""Keys between two prefix sums."""
_CUDA_CHUNK = 256
"""On a GPU, where fewer and larger products are faster."""
_CACHED = 1 << 18
"""Numbers of a tensor that stay in a CPU's cache while others of the same size are read."""

Part = slice | tuple[slice, slice]
"""Index of some sequences of an (N, L, ...) tensor, or of some of its rows."""


@without_autocast
def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool,
    angles: tuple[Tensor, Tensor] | None = None,
    floor: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Means of the values under the products of features; zero in a row whose weights are zero.

    Args:
        q: (B, H, Lq, R) features of the queries, non-negative, in float32 at least.
        k: (B, H, Lk, R) features of the keys, likewise; zero where a key is masked.
        v: (B, H, Lk, Dv) in the dtype of q; finite where a key is masked.
        causal: query i sees keys j <= i + Lk - Lq.
        angles: of the positions of queries and keys, (B or 1, Lq) and (B or 1, Lk), within
            [0, pi/2]; None: no cosine.
        floor: the least denominator.

    Returns:
        (B, H, Lq, Dv) means, and (B, H, Lq, 1) sums of weights, which have no gradient.
    """
    turns: tuple[Tensor | None, Tensor | None] = (None, None)
    if angles is not None:
        turns = _turns(angles[0], q), _turns(angles[1], k)
    function: Any = _Causal if causal else _Noncausal
    inputs = (x.flatten(0, 1) for x in (q, k, v))
    out, total = function.apply(*inputs, *turns, floor)
    return out.unflatten(0, q.shape[:2]), total.unflatten(0, q.shape[:2])


def linear_attention_flops(
    shape: AttentionShape, features: int, *, causal: bool, turned: bool = False
) -> float:
    """Of the sums over keys and their reading by queries, and causally of the chunks."""
    rows, width = shape.batch * shape.heads, shape.value_dim + 1
    rank = features * (2 if turned else 1)
    sums = 2 * rows * (shape.length_q + shape.length_k) * rank * width
    within = 2 * rows * shape.length_q * _CHUNK * (features + width)
    return sums + within if causal else sums


def turned_features(x: Tensor, angles: Tensor) -> Tensor:
    """(B, H, L, 2 R) features [x cos a, x sin a] of (B, H, L, R) and angles (B or 1, L)."""
    angles = angles[:, None, :, None]
    return torch.cat((x * angles.cos(), x * angles.sin()), dim=-1)


def sums_of(k: Tensor, v: Tensor) -> Tensor:
    """S and z of some keys as one tensor, (B, H, R, Dv + 1): what a decoder keeps and adds up."""
    return k.mT @ F.pad(v.to(k.dtype), (0, 1), value=1.0)


def read_sums(q: Tensor, sums: Tensor, floor: float = 0.0) -> Tensor:
    """(B, H, Lq, Dv) outputs of queries that all see the keys of the sums."""
    read = q @ sums
    return safe_divide(read[..., :-1], read[..., -1:], floor)


def safe_divide(numerator: Tensor, denominator: Tensor, floor: float = 0.0) -> Tensor:
    """Numerator / max(denominator, floor); zero where the denominator is zero (no key seen)."""
    empty = denominator == 0
    divided = numerator / denominator.clamp(min=floor).masked_fill(empty, 1.0)
    return divided.masked_fill(empty, 0.0)


class _Noncausal(torch.autograd.Function):
    """Inputs (N, L, ...), heads in the batch; turns (N, L, 2), cosine and sine; sums (N, 1, R)."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        turn_q: Tensor | None,
        turn_k: Tensor | None,
        floor: float,
    ) -> tuple[Tensor, Tensor]:
        out, total = v.new_empty(*q.shape[:2], v.shape[2]), v.new_empty(*q.shape[:2], 1)
        values, sums = _zero_sums(q, v, turn_q)
        for heads in _groups(q, k, v):
            turned = _turned_part(k, turn_k, heads)
            torch.bmm(turned.mT, v[heads], out=values[heads])
            torch.sum(turned, 1, keepdim=True, out=sums[heads])
            turned = _turned_part(q, turn_q, heads)
            torch.sum(turned * sums[heads], -1, keepdim=True, out=total[heads])
            torch.bmm(turned, values[heads], out=out[heads]).div_(_divisor(total[heads], floor))
        ctx.save_for_backward(q, k, v, turn_q, turn_k, out, total, values, sums)
        ctx.floor = floor
        ctx.mark_non_differentiable(total)
        return out, total

    @staticmethod
    @first_derivatives_only
    @without_autocast
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, turn_q, turn_k, out, total, values, sums = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        for heads in _groups(q, k, v):
            dmeans, dtotal = _row_gradients(grad[heads], out[heads], total[heads], ctx.floor)
            turned = _turned_part(q, turn_q, heads)
            dvalues, dsums = torch.bmm(turned.mT, dmeans), (turned * dtotal).sum(1, keepdim=True)
            dturned = torch.bmm(dmeans, values[heads].mT).addcmul_(dtotal, sums[heads])
            dq[heads] = _turned_back(dturned, turn_q, heads)
            torch.bmm(_turned_part(k, turn_k, heads), dvalues, out=dv[heads])
            dturned = torch.bmm(v[heads], dvalues.mT).add_(dsums)
            dk[heads] = _turned_back(dturned, turn_k, heads)
        return dq, dk, dv, None, None, None


class _Causal(torch.autograd.Function):
    """As above. Keys before the first query, Lk - Lq of them, enter the first sums."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        turn_q: Tensor | None,
        turn_k: Tensor | None,
        floor: float,
    ) -> tuple[Tensor, Tensor]:
        out, total = v.new_empty(*q.shape[:2], v.shape[2]), v.new_empty(*q.shape[:2], 1)
        lag = k.shape[1] - q.shape[1]
        values, sums = _zero_sums(q, v, turn_q)
        early = (slice(None), slice(0, lag))
        turned_k = _turned_part(k, turn_k, early)
        values.baddbmm_(turned_k.mT, v[early])
        sums += turned_k.sum(1, keepdim=True)
        before: list[Tensor] = []
        for rows, keys in _chunks(q, lag):
            turned_q, turned_k = _turned_part(q, turn_q, rows), _turned_part(k, turn_k, keys)
            weights = torch.bmm(q[rows], k[keys].mT)
            _keep_visible_(weights, turn_q, turn_k, rows, keys)
            own = weights.sum(-1, keepdim=True).add_((turned_q * sums).sum(-1, keepdim=True))
            means = torch.bmm(weights, v[keys]).baddbmm_(turned_q, values)
            torch.div(means, _divisor(own, floor), out=out[rows])
            total[rows] = own
            before += [values, sums]
            values = torch.baddbmm(values, turned_k.mT, v[keys])
            sums = sums + turned_k.sum(1, keepdim=True)
        ctx.save_for_backward(q, k, v, turn_q, turn_k, out, total, *before)
        ctx.floor = floor
        ctx.mark_non_differentiable(total)
        return out, total

    @staticmethod
    @first_derivatives_only
    @without_autocast
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, turn_q, turn_k, out, total, *before = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        lag = k.shape[1] - q.shape[1]
        dvalues, dsums = _zero_sums(q, v, turn_q)
        for rows, keys in reversed(list(_chunks(q, lag))):
            sums, values = before.pop(), before.pop()
            own_q, own_k, own_v = q[rows], k[keys], v[keys]
            turned_q, turned_k = _turned_part(q, turn_q, rows), _turned_part(k, turn_k, keys)
            dmeans, dtotal = _row_gradients(grad[rows], out[rows], total[rows], ctx.floor)
            weights = torch.bmm(own_q, own_k.mT)
            dweights = torch.bmm(dmeans, own_v.mT).add_(dtotal)
            _keep_visible_(weights, turn_q, turn_k, rows, keys)
            _keep_visible_(dweights, turn_q, turn_k, rows, keys)
            dturned = torch.bmm(dmeans, values.mT).addcmul_(dtotal, sums)
            dq[rows] = _turned_back(dturned, turn_q, rows).baddbmm_(dweights, own_k)
            dturned = torch.bmm(own_v, dvalues.mT).add_(dsums)
            dk[keys] = _turned_back(dturned, turn_k, keys).baddbmm_(dweights.mT, own_q)
            dv[keys] = torch.bmm(turned_k, dvalues).baddbmm_(weights.mT, dmeans)
            dvalues.baddbmm_(turned_q.mT, dmeans)
            dsums += (turned_q * dtotal).sum(1, keepdim=True)
        early = (slice(None), slice(0, lag))
        dturned = torch.bmm(v[early], dvalues.mT).add_(dsums)
        dk[early] = _turned_back(dturned, turn_k, early)
        dv[early] = torch.bmm(_turned_part(k, turn_k, early), dvalues)
        return dq, dk, dv, None, None, None


def _chunks(q: Tensor, lag: int) -> Iterator[tuple[Part, Part]]:
    """Successive rows of (N, Lq, R) queries, and those of the keys at the same positions."""
    size = _CUDA_CHUNK if q.is_cuda else _CHUNK
    for start in range(0, q.shape[1], size):
        stop, every = min(start + size, q.shape[1]), slice(None)
        yield (every, slice(start, stop)), (every, slice(start + lag, stop + lag))


def _groups(*inputs: Tensor) -> Iterator[slice]:
    """Successive sequences of (N, L, ...) tensors: on a CPU so few that they stay in its cache."""
    count, largest = len(inputs[0]), max(x[0].numel() for x in inputs)
    size = count if inputs[0].is_cuda else max(1, _CACHED // max(1, largest))
    for start in range(0, count, size):
        yield slice(start, start + size)


def _zero_sums(q: Tensor, v: Tensor, turn: Tensor | None) -> tuple[Tensor, Tensor]:
    """S and z of no keys: (N, R, Dv) and (N, 1, R), with turned features twice as wide."""
    width = q.shape[2] * (1 if turn is None else 2)
    return v.new_zeros(v.shape[0], width, v.shape[2]), v.new_zeros(v.shape[0], 1, width)


def _turns(angles: Tensor, x: Tensor) -> Tensor:
    """(B H, L, 2) cosines and sines, from the angles (B or 1, L) of tokens (B, H, L, R)."""
    turns = torch.stack((angles.cos(), angles.sin()), dim=-1).to(x.dtype)
    if len(turns) == 1:
        return turns.expand(x.shape[0] * x.shape[1], -1, -1)
    return turns.repeat_interleave(x.shape[1], dim=0)


def _turned_part(x: Tensor, turn: Tensor | None, part: Part) -> Tensor:
    """Part of x, (N, L, R); with turns (N, L, 2 R)."""
    if turn is None:
        return x[part]
    return (x[part][..., None, :] * turn[part][..., None]).flatten(-2)


def _turned_back(x: Tensor, turn: Tensor | None, part: Part) -> Tensor:
    """The transpose of `_turned_part`: from a gradient for its output to that for the part of x."""
    if turn is None:
        return x
    by_cosine, by_sine = x.chunk(2, dim=-1)
    cosine, sine = turn[part].chunk(2, dim=-1)
    return (by_cosine * cosine).addcmul_(by_sine, sine)


def _keep_visible_(
    weights: Tensor, turn_q: Tensor | None, turn_k: Tensor | None, rows: Part, keys: Part
) -> None:
    """Within a chunk: put the cosines into q·k, and remove the weights of later keys."""
    if turn_q is not None and turn_k is not None:
        weights.mul_(torch.bmm(turn_q[rows], turn_k[keys].mT))
    weights.tril_()


def _divisor(total: Tensor, floor: float) -> Tensor:
    return total.clamp(min=floor) if floor else total.masked_fill(total == 0, 1.0)


def _row_gradients(grad: Tensor, out: Tensor, total: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """Gradients for the sums of values and of weights, from that for their quotient."""
    divisor = _divisor(total, floor)
    dmeans = grad / divisor
    dtotal = (dmeans * out).sum(-1, keepdim=True).neg_()
    return dmeans, dtotal.masked_fill_(total < divisor, 0.0) if floor else dtotal
