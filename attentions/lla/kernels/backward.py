"""Backward kernels of Local Linear Attention: implicit differentiation, one more solve.

With g = dL/do, G_ij = g_i·v_j, Gbar_i = sum_j p_ij G_ij, a_ij = (k_j - kbar_i)·x_i:

    u_i = C_i^-1 sum_j p_ij G_ij (k_j - kbar_i),    b_ij = (k_j - kbar_i)·u_i
    c_ij = G_ij - Gbar_i - b_ij
    dL/dlogit_ij = p_ij ((1 + a_ij) c_ij + s_i),    s_i such that a row sums to zero
    dq_i = u_i + scale sum_j dL/dlogit_ij k_j
    dk_j = sum_i scale dL/dlogit_ij q_i + p_ij c_ij x_i - p_ij (1 + a_ij) u_i
    dv_j = sum_i p_ij (1 + a_ij) g_i
    dridge = -sum_i u_i·x_i

One kernel owns a tile of queries (u, dq and what the other needs of a row), the other a tile of
keys (dk, dv); neither needs atomic additions. A probe (`attentions.lla.kernels.probe`) goes through
the same kernels with u = 0.
"""

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from attentions.lla.kernels.backward_kernels import (
    PROBE_ROW_TERMS,
    ROW_TERMS,
    key_kernel,
    query_kernel,
)
from attentions.lla.kernels.common import LOG2_E, bucket, mask_bytes, on_device_of, product_dtype
from attentions.lla.kernels.forward import Forward


class Gradients(NamedTuple):
    """Gradients in the dtypes of their tensors, and how well the solve went."""

    q: Tensor
    """(N, Lq, D)."""
    k: Tensor
    """(N, Lk, D)."""
    v: Tensor
    """(N, Lk, Dv)."""
    ridge: Tensor
    """(N,) float32."""
    residual: Tensor
    """(N, Lq) relative residuals of the solve for u, as the recurrence has them."""


def local_linear_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ridge: Tensor,
    key_mask: Tensor | None,
    forward: Forward,
    *,
    scale: float,
    causal: bool,
    iterations: int,
    tolerance: float,
    precision: str = "ieee",
) -> Gradients:
    """Gradients of `local_linear_forward`.

    Args:
        grad: (N, Lq, Dv) gradient of the output.
        forward: the forward kernel's results for the same inputs.

    The rest is as in `local_linear_forward`. The error of the gradients is linear in the
    tolerance, and only as small as the forward solve lets it be.
    """
    u = torch.empty_like(forward.x)
    dq, dk, dv, terms = launch_backward(
        grad,
        q,
        k,
        v,
        ridge,
        key_mask,
        forward,
        u,
        scale=scale,
        causal=causal,
        iterations=iterations,
        tolerance=tolerance,
        precision=precision,
    )
    return Gradients(dq, dk, dv, terms[:, 4].sum(1), terms[:, 5])


def launch_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ridge: Tensor | None,
    key_mask: Tensor | None,
    forward: Forward,
    u: Tensor,
    *,
    scale: float,
    causal: bool,
    iterations: int = 0,
    tolerance: float = 0.0,
    precision: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run both kernels.

    Args:
        u: (N, Lq, D) contiguous, overwritten: with u where there is a ridge, else with the
            gradient of x.

    Returns:
        Gradients of q, k and v, and the row terms of the query kernel, (N, terms, Lq) float32.
    """
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    grad = grad.to(v.dtype).contiguous()
    n, length_q, dim = q.shape
    length_k, dim_v = v.shape[1:]
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    row_terms = PROBE_ROW_TERMS if ridge is None else ROW_TERMS
    terms = forward.lse.new_zeros(n, row_terms, length_q)
    mask = mask_bytes(key_mask, k)
    lengths = (length_q, length_k, bucket(length_q), bucket(length_k), scale, scale * LOG2_E)
    options = {
        "D": dim,
        "DV": dim_v,
        "BLOCK_D": bucket(dim),
        "BLOCK_V": bucket(dim_v),
        "CAUSAL": causal,
        "HAS_MASK": key_mask is not None,
        "OPERAND": product_dtype(q.dtype),
        "PRECISION": precision,
        "ROW_TERMS": row_terms,
        "SOLVE": ridge is not None,
    }
    ridge = forward.lse.new_empty(0) if ridge is None else ridge.contiguous()

    def query_grid(config: dict[str, int]) -> tuple[int]:
        return (triton.cdiv(length_q, config["BLOCK_Q"]) * n,)

    def key_grid(config: dict[str, int]) -> tuple[int]:
        return (triton.cdiv(length_k, config["BLOCK_K"]) * n,)

    with on_device_of(q):
        if dq.numel():
            query_kernel[query_grid](
                q, k, v, ridge, mask, forward.out, forward.x, forward.kbar, forward.lse, grad,
                dq, u, terms, *lengths, iterations, tolerance, **options,
            )  # fmt: skip
        if dk.numel():
            key_kernel[key_grid](
                q, k, v, mask, forward.x, forward.lse, grad, u, terms, dk, dv, *lengths, **options
            )
    return dq, dk, dv, terms
