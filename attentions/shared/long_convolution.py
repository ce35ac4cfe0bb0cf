"""Convolutions as long as the sequence whose kernels are sums of exponentials, chunk by chunk.

The kernel of channel e, from token s to token t, is

    lag l = t - s >= 0:  k_e[l] = Re sum_n g_en λ_en^l
    lag l < 0:           k'_e[-l - 1], likewise with amplitudes of its own, or zero

Within a chunk of c tokens a channel's convolution is a product with a c x c Toeplitz matrix, and
between chunks the past is a state of as many complex numbers as there are exponentials:

    x_i = sum_j λ^(c-1-j) u_ij + λ^c x_(i-1)        of chunk i
    y_it += Re sum_n g_n λ^(t+1) x_(i-1)n

and the future another one, which runs backwards. Everything is real matrix products, in time and
memory linear in the length, and no kernel of the sequence's length is ever made. Neither a Fourier
transform nor padding mixes tokens, so a causal output depends on no later token, not even in the
last bit.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.shared.compiled import uncompiled
from attentions.shared.first_order import first_derivatives_only

CHUNK = 32
"""Tokens; a power of two."""
_BLOCK = 2**18
"""Numbers of the input that are processed at a time on a CPU."""


class ExponentialKernel(NamedTuple):
    """What a convolution needs of its kernels; E channels, N exponentials, S = 1 or 2 sides."""

    within: Tensor
    """(E, c, c) from token j to token t of the same chunk"""
    write: Tensor
    """(E, c, 2SN) from the tokens of a chunk to its states' real and imaginary parts"""
    read: Tensor
    """(E, 2SN, c) from the states that enter a chunk to its tokens"""
    decay: Tensor
    """(E, N) complex: λ^c"""


def exponential_kernel(rate: Tensor, amplitude: Tensor, skip: Tensor) -> ExponentialKernel:
    """Tables of the kernels.

    Args:
        rate: (E, N) complex, λ = exp(rate); its real part is negative.
        amplitude: (S, E, N) complex g of the past, and with S = 2 of the future.
        skip: (E,) added to the kernel at lag 0.
    """
    factor = rate.exp()
    # Products instead of the exponentials of all lags: a complex exp costs as much as forty.
    powers, step = torch.ones_like(factor)[:, None], factor[:, None]
    while powers.shape[1] < CHUNK:
        powers, step = torch.cat([powers, powers * step], dim=1), step.square()
    terms = amplitude[:, :, None] * powers
    past, *future = terms.real.sum(-1)
    past = past + F.pad(skip[:, None], (0, CHUNK - 1))
    before = future[0][:, :-1].flip(-1) if future else past.new_zeros(len(past), CHUNK - 1)
    # Row j of the flipped windows holds the lags -j to c - 1 - j.
    within = torch.cat([before, past], dim=-1).unfold(-1, CHUNK, 1).flip(1)
    write, read = [powers.flip(1)], [terms[0] * factor[:, None]]
    if future:
        write.append(powers)
        read.append(terms[1].flip(1))
    return ExponentialKernel(
        within,
        torch.view_as_real(torch.cat(write, dim=-1)).flatten(-2),
        # Re(g x) is the real product of conj(g) and x as pairs.
        torch.view_as_real(torch.cat(read, dim=-1).conj().resolve_conj()).flatten(-2).mT,
        step[:, 0],
    )


@uncompiled
def gelu_convolution(u: Tensor, kernel: ExponentialKernel) -> Tensor:
    """GELU of the convolution of (B, H, L, D) inputs over L; channel e is dimension e % D of head
    e // D. In float32 or float64.
    """
    out: Tensor = _GeluConvolution.apply(u, *kernel)  # type: ignore[no-untyped-call]  # apply is not annotated in torch
    return out


def final_state(u: Tensor, kernel: ExponentialKernel) -> Tensor:
    """(B, H, D, N) complex: sum_j λ^(L-1-j) u_j."""
    heads, length = u.shape[1], u.shape[2]
    u = F.pad(u, (0, 0, -length % CHUNK, 0))
    states = _written(_channels(u), kernel, u.shape[0])[..., : kernel.decay.shape[-1]]
    state = torch.zeros_like(states.sum(2))
    for own in states.unbind(2):
        state = torch.addcmul(own, state, kernel.decay[:, None])
    return state.unflatten(0, (heads, -1)).movedim(2, 0)


class _GeluConvolution(torch.autograd.Function):
    """A few heads at a time, so that what is made on the way stays in a CPU's cache; made again in
    the backward pass, so that only the inputs are kept.
    """

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, within: Tensor, write: Tensor, read: Tensor, decay: Tensor
    ) -> Tensor:
        ctx.save_for_backward(u, within, write, read, decay)
        out = torch.empty_like(u)
        for heads, channels in _blocks(u):
            kernel = ExponentialKernel(*(x[channels] for x in (within, write, read, decay)))
            y, _ = _convolve(_channels(u[:, heads]), kernel, u.shape[0])
            _put(out[:, heads], F.gelu(y))
        return out

    @staticmethod
    @first_derivatives_only
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        u, *tables = ctx.saved_tensors
        grad_u, grad_tables = torch.empty_like(u), [torch.empty_like(x) for x in tables]
        for heads, channels in _blocks(u):
            kernel = ExponentialKernel(*(x[channels] for x in tables))
            x = _channels(u[:, heads])
            y, entering = _convolve(x, kernel, u.shape[0])
            g = torch.ops.aten.gelu_backward(_channels(gradients[0][:, heads]), y)
            grad_entering = torch.view_as_complex((g @ kernel.read.mT).view(*entering.shape, 2))
            grad_written = _pass_on(grad_entering, kernel.decay.conj(), reverse=True)
            grad_x = torch.baddbmm(g @ kernel.within.mT, _pairs(grad_written), kernel.write.mT)
            _put(grad_u[:, heads], grad_x)
            grad_decay = (entering.conj_physical() * grad_written).sum((1, 2))
            found = (
                x.mT @ g,
                x.mT @ _pairs(grad_written),
                _pairs(entering).mT @ g,
                grad_decay.unflatten(-1, (-1, kernel.decay.shape[-1])).sum(1),
            )
            for whole, piece in zip(grad_tables, found, strict=True):
                whole[channels] = piece
        return (grad_u, *grad_tables)


def _blocks(u: Tensor) -> list[tuple[slice, slice]]:
    """Heads to be done at a time, and their channels: all where launches cost more than caching
    gains.
    """
    batch, heads, length, width = u.shape
    step = heads
    if u.device.type == "cpu":
        step = min(heads, max(1, _BLOCK // max(1, batch * length * width)))
    starts = range(0, heads, step)
    return [(slice(i, i + step), slice(i * width, (i + step) * width)) for i in starts]


def _channels(u: Tensor) -> Tensor:
    """(H D, B n, c) contiguous, filled up with zeros, from (B, H, L, D)."""
    x = u.permute(1, 3, 0, 2)
    padding = -x.shape[-1] % CHUNK
    x = F.pad(x, (0, padding)) if padding else x
    heads, width, batch, length = x.shape
    return x.contiguous().view(heads * width, batch * length // CHUNK, CHUNK)


def _put(out: Tensor, y: Tensor) -> None:
    """Write (H D, B n, c) to (B, H, L, D)."""
    batch, heads, length, width = out.shape
    out.copy_(y.view(heads, width, batch, -1)[..., :length].permute(2, 0, 3, 1))


def _convolve(x: Tensor, kernel: ExponentialKernel, batch: int) -> tuple[Tensor, Tensor]:
    """(E, B n, c) outputs, and the states (E, B, n, S N) that enter each chunk."""
    entering = _pass_on(_written(x, kernel, batch), kernel.decay)
    return torch.baddbmm(x @ kernel.within, _pairs(entering), kernel.read), entering


def _written(x: Tensor, kernel: ExponentialKernel, batch: int) -> Tensor:
    """(E, B, n, S N) complex: what each chunk adds to the states."""
    pairs = (x @ kernel.write).unflatten(-1, (-1, 2))
    return torch.view_as_complex(pairs).unflatten(1, (batch, -1))


def _pairs(states: Tensor) -> Tensor:
    """(E, B n, 2 S N) real."""
    return torch.view_as_real(states).flatten(-2).flatten(1, 2)


def _pass_on(written: Tensor, decay: Tensor, reverse: bool = False) -> Tensor:
    """The states that enter each chunk: the past's from its predecessor, the future's from its
    successor; in reverse the other way round.
    """
    entering = torch.empty_like(written)
    size, decay = decay.shape[-1], decay[:, None].resolve_conj()
    for side, first in enumerate(range(0, written.shape[-1], size)):
        own, states = (x.narrow(-1, first, size).unbind(2) for x in (written, entering))
        steps = list(zip(own, states, strict=True))
        if (side == 1) != reverse:
            steps.reverse()
        if steps:
            steps[0][1].zero_()
        for (added, state), (_, following) in pairwise(steps):
            torch.addcmul(added, state, decay, out=following)
    return entering
