"""What the GPU benchmark times: the kernels, the torch paths and fused softmax attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional as F

import cab
from attentions.lla.attention import LocalLinearAttention
from attentions.lla.probe import local_probe
from attentions.lla.reference import local_linear_closed_form
from attentions.shared.exact import exact_softmax, exact_softmax_attention
from benchmarks.timing import Call

PHASES = ("forward", "forward_backward", "decode")


class Inputs(NamedTuple):
    """Of one call; in decode the queries and probes are of the last token only."""

    q: Tensor
    """(1, H, Lq, D)."""
    k: Tensor
    """(1, H, L, D)."""
    v: Tensor
    """(1, H, L, D)."""
    x: Tensor
    """(1, H, Lq, D) probes, which only Parallax reads."""


Attend = Callable[[Inputs], Tensor]
Exact = Callable[[Inputs, Tensor], Tensor]
"""The definition, from inputs and a mask (Lq, L) of the visible keys."""


@dataclass(frozen=True)
class Operation:
    """A mechanism that has been built for some heads on a device."""

    parallel: Attend
    decode: Attend | None
    exact: Exact
    module: LocalLinearAttention | None = None
    """Where it is one, to ask for its ridge, its budget and the residual of its last call."""

    def attend(self, phase: str) -> Attend | None:
        """None where the mechanism has no such phase of its own."""
        return self.decode if phase == "decode" else self.parallel


@dataclass(frozen=True)
class Entry:
    """One line of the tables."""

    name: str
    attention: str
    """Id in the registry."""
    backend: str
    build: Callable[[int, int, torch.device], Operation]
    """For heads and head dim on a device."""
    options: dict[str, str] = field(default_factory=dict)
    flops: Callable[[str, float], float] | None = None
    """FLOPs of a phase and T iterations, per query, key and dim; None where they are not those of
    a kernel in bfloat16."""


def sdpa_flops(phase: str, _: float) -> float:
    """Two products forward, five backward."""
    return {"forward": 4, "forward_backward": 14}[phase]


def lla_flops(phase: str, iterations: float) -> float:
    """Two products for the mean, three for the output and three an iteration; backward another
    solve and twelve products, were no product taken twice.
    """
    forward = 10 + 6 * iterations
    return {"forward": forward, "forward_backward": forward + 24 + 6 * iterations}[phase]


def parallax_flops(phase: str, _: float) -> float:
    """As `lla_flops`, without a solve and with two products less in the backward pass."""
    return {"forward": 10, "forward_backward": 30}[phase]


def _lla(solver: str, own_decode: bool) -> Callable[[int, int, torch.device], Operation]:
    def build(heads: int, dim: int, device: torch.device) -> Operation:
        module = cab.attention(
            "lla", pattern="causal-self", heads=heads, head_dim=dim, solver=solver
        )
        module = cast("LocalLinearAttention", module.to(device).eval())

        def exact(i: Inputs, mask: Tensor) -> Tensor:
            ridge = module.ridge.detach().to(i.q)[: i.q.shape[1]]
            return local_linear_closed_form(i.q, i.k, i.v, mask, ridge, module.scale)

        def decode(i: Inputs) -> Tensor:
            return module.attend_once(i.q, i.k, i.v)

        return Operation(
            lambda i: module(i.q, i.k, i.v), decode if own_decode else None, exact, module
        )

    return build


def _sdpa(heads: int, dim: int, device: torch.device) -> Operation:
    def parallel(i: Inputs) -> Tensor:
        return F.scaled_dot_product_attention(i.q, i.k, i.v, is_causal=True)

    def decode(i: Inputs) -> Tensor:
        return F.scaled_dot_product_attention(i.q, i.k, i.v)

    return Operation(parallel, decode, lambda i, mask: exact_softmax_attention(i.q, i.k, i.v, mask))


def _parallax(heads: int, dim: int, device: torch.device) -> Operation:
    scale = dim**-0.5

    def attend(i: Inputs) -> Tensor:
        q, k, v, x = (t.flatten(0, 1) for t in i)
        return local_probe(q, k, v, x, scale=scale, causal=True).unflatten(0, i.q.shape[:2])

    def exact(i: Inputs, mask: Tensor) -> Tensor:
        p = exact_softmax(i.q, i.k, mask, scale)
        along = i.x @ i.k.mT - (i.x * (p @ i.k)).sum(-1, keepdim=True)
        return (p * (1 + along)) @ i.v

    return Operation(attend, attend, exact)


SDPA, TRITON = "sdpa (flash)", "lla triton"
ENTRIES = (
    Entry(SDPA, "softmax", "torch", _sdpa, flops=sdpa_flops),
    Entry(TRITON, "lla", "triton", _lla("triton", True), {"solver": "triton"}, lla_flops),
    Entry("parallax", "parallax", "triton", _parallax, flops=parallax_flops),
    Entry("lla torch, cholesky", "lla", "torch", _lla("cholesky", True), {"solver": "cholesky"}),
    # Its decode step is that of cholesky.
    Entry("lla torch, cg", "lla", "torch", _lla("cg", False), {"solver": "cg"}),
)


def draw(
    heads: int, length: int, dim: int, phase: str, device: torch.device, dtype: torch.dtype
) -> Inputs:
    """Fresh inputs; probes give corrections of about one, as those of Local Linear Attention."""
    rows = 1 if phase == "decode" else length
    q, k, v, x = (
        torch.randn(1, heads, n, dim, device=device) for n in (rows, length, length, rows)
    )
    tensors = (t.to(dtype) for t in (q, k, v, x * dim**-0.5))
    return Inputs(*(t.requires_grad_(phase == "forward_backward") for t in tensors))


def prepare(attend: Attend, inputs: Inputs, phase: str) -> Call:
    """A call of one phase on given inputs."""
    if phase != "forward_backward":

        def forward() -> Tensor:
            with torch.no_grad():
                return attend(inputs)

        return forward
    gradient = torch.randn_like(inputs.q)

    def forward_backward() -> Tensor:
        out = attend(inputs)
        out.backward(gradient)
        return out.detach()

    return forward_backward
