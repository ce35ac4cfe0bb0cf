"""Which way of solving a call of Local Linear Attention takes, and the call itself.

cholesky   exact; a matrix per query row, O(Lq Lk D^2); any ridge, any device, float64 too
cg         matrix-free conjugate gradients, O(Lq Lk D) per iteration; any device, float64 too
triton     conjugate gradients in fused kernels; CUDA, head dims up to 128, float32 arithmetic
auto       triton where it runs and the ridge is not small; else the cheaper of the other two; in
           float64 the exact one
"""

from __future__ import annotations

import functools
import importlib.util
import os
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from attentions.lla.basis import basis_of
from attentions.lla.centre import centre_of
from attentions.lla.cholesky import CholeskySolver
from attentions.lla.conjugate_gradients import ConjugateGradientSolver
from attentions.lla.regression import Settings, SolverFactory, local_regression
from attentions.lla.residual import ResidualMonitor
from attentions.shared.autocast import without_autocast

Solver = Literal["cholesky", "cg", "triton"]

MAX_KERNEL_DIM = 128
SMALL_RIDGE = 0.1
"""Below it the systems of real keys need more iterations than a budget should hold, and auto
prefers the exact solve everywhere."""
CHOLESKY_DIM = 64
"""Up to this head dim the exact solve costs no more than the iterations that a moderate ridge
takes: D / 3 of them (docs/lla.md has the measured crossover)."""


@dataclass(frozen=True)
class Budget:
    """When conjugate gradients stop."""

    iterations: int
    tolerance: float
    """Relative residual |b - C x| / |b| at which a row stops."""


@functools.cache
def kernels_run_on(device: str) -> bool:
    """Whether the Triton kernels can serve tensors on this type of device."""
    if importlib.util.find_spec("triton") is None:
        return False
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    return interpreted if device == "cpu" else device == "cuda"


def kernels_serve(q: Tensor, v: Tensor) -> bool:
    """Whether the Triton kernels can serve queries (..., D) and values (..., Dv)."""
    fits = max(q.shape[-1], v.shape[-1]) <= MAX_KERNEL_DIM and q.dtype != torch.float64
    return fits and kernels_run_on(q.device.type)


def choose_solver(q: Tensor, v: Tensor, ridge: float) -> Solver:
    """What ``auto`` stands for.

    Args:
        q: (..., D) queries. v: (..., Dv) values.
        ridge: that the mechanism starts with.
    """
    if q.is_cuda and kernels_serve(q, v) and ridge >= SMALL_RIDGE:
        return "triton"
    exact = q.dtype == torch.float64 or q.shape[-1] <= CHOLESKY_DIM or ridge < SMALL_RIDGE
    return "cholesky" if exact else "cg"


@without_autocast
def local_linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ridge: Tensor,
    key_mask: Tensor | None = None,
    *,
    scale: float,
    causal: bool,
    solver: Solver,
    budget: Budget,
    monitor: ResidualMonitor,
) -> Tensor:
    """Local Linear Attention of heads folded into the batch.

    Args:
        q: (N, Lq, D) queries, N = batch times heads. k: (N, Lk, D). v: (N, Lk, Dv).
        ridge: (N,) positive, relative to the total weight of a row.
        key_mask: (N, Lk) bool, True where valid, or None.
        scale: factor of q·k in the exponent.
        causal: query i sees keys j <= i + Lk - Lq.
        solver: how to solve.
        budget: of conjugate gradients.
        monitor: told the residuals of conjugate gradients.

    Returns:
        (N, Lq, Dv) in the dtype of v; zeros in a row that sees no key.

    Raises:
        NotImplementedError: the kernels were asked for where they do not run.
        ValueError: no such solver.
    """
    if solver not in get_args(Solver):
        raise ValueError(f"solver is one of {', '.join(get_args(Solver))}, not {solver!r}")
    if solver == "triton":
        return _on_kernels(
            q, k, v, ridge, key_mask, scale=scale, causal=causal, budget=budget, monitor=monitor
        )
    dim = k.shape[-1]
    if solver == "cholesky":
        factory: SolverFactory = CholeskySolver
        system = dim * dim
    else:
        factory = functools.partial(
            ConjugateGradientSolver, iterations=budget.iterations, tolerance=budget.tolerance
        )
        system = dim
    work = torch.promote_types(q.dtype, torch.float32)
    q, k = q.to(work), k.to(work)
    centre = centre_of(k, key_mask)
    at, keys = q - centre, k - centre
    settings = Settings(key_mask, scale, causal, factory, system, basis_of(dim), monitor.watch)
    out = local_regression(q, keys, at, keys, v.to(work), ridge.to(work), None, settings)
    return out.to(v.dtype)


def _on_kernels(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ridge: Tensor,
    key_mask: Tensor | None,
    *,
    scale: float,
    causal: bool,
    budget: Budget,
    monitor: ResidualMonitor,
) -> Tensor:
    require_kernels(q, v)
    from attentions.lla.kernels.function import local_linear_triton

    out, _ = local_linear_triton(
        q, k, v, ridge.float(), key_mask, scale=scale, causal=causal,
        iterations=budget.iterations, tolerance=budget.tolerance,
        precision=kernel_precision(q), watch=monitor.watch,
    )  # fmt: skip
    return out


def require_kernels(q: Tensor, v: Tensor) -> None:
    """Raise NotImplementedError, with the way out, where the Triton kernels do not run."""
    if not kernels_run_on(q.device.type):
        raise NotImplementedError(
            f"solver=triton does not run on {q.device.type} here: it needs Triton and a CUDA "
            "device, or TRITON_INTERPRET=1 for a slow check on a CPU; solver=auto takes what runs"
        )
    if q.dtype == torch.float64:
        raise NotImplementedError("solver=triton computes in float32; for float64 use cholesky")
    if max(q.shape[-1], v.shape[-1]) > MAX_KERNEL_DIM:
        raise NotImplementedError(
            f"solver=triton serves head dims up to {MAX_KERNEL_DIM}, not {q.shape[-1]} and "
            f"{v.shape[-1]}; use solver=cg"
        )


def kernel_precision(q: Tensor) -> str:
    """How float32 products are taken: as three TF32 products on tensor cores, nearly exact."""
    return "tf32x3" if q.is_cuda else "ieee"
