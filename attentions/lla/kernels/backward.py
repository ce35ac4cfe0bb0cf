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
keys (dk, dv); neither needs atomic additions.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from attentions.lla.kernels.common import (
    LOG2_E,
    bucket,
    key_end,
    load_rows,
    mask_bytes,
    product_dtype,
    score_tile,
    solve,
    store_rows,
    tuned,
)
from attentions.lla.kernels.forward import Forward

_ROW_TERMS = 6


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


@tuned(
    ({"BLOCK_Q": 32, "BLOCK_K": 32}, 4, 2),
    ({"BLOCK_Q": 32, "BLOCK_K": 64}, 4, 2),
    ({"BLOCK_Q": 64, "BLOCK_K": 32}, 4, 2),
    ({"BLOCK_Q": 64, "BLOCK_K": 64}, 8, 2),
    ({"BLOCK_Q": 128, "BLOCK_K": 32}, 8, 2),
    blocks=("BLOCK_Q", "BLOCK_K"),
)
@triton.jit  # type: ignore[untyped-decorator]
def _query_kernel(
    q_ptr: Any,
    k_ptr: Any,
    v_ptr: Any,
    ridge_ptr: Any,
    mask_ptr: Any,
    out_ptr: Any,
    x_ptr: Any,
    kbar_ptr: Any,
    lse_ptr: Any,
    grad_ptr: Any,
    dq_ptr: Any,
    u_ptr: Any,
    terms_ptr: Any,
    length_q: Any,
    length_k: Any,
    bucket_q: Any,
    bucket_k: Any,
    scale: Any,
    scale_log2: Any,
    iterations: Any,
    tolerance: Any,
    D: tl.constexpr,
    DV: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr,
    CAUSAL: tl.constexpr,
    HAS_MASK: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    ROW_TERMS: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    tiles = tl.cdiv(length_q, BLOCK_Q)
    n = (tl.program_id(0) // tiles).to(tl.int64)
    first_row = (tiles - 1 - tl.program_id(0) % tiles) * BLOCK_Q
    rows = first_row + tl.arange(0, BLOCK_Q)
    inside = rows < length_q
    dims = tl.arange(0, BLOCK_D)
    value_dims = tl.arange(0, BLOCK_V)
    k_base = k_ptr + n * length_k * D
    v_base = v_ptr + n * length_k * DV
    mask_base = mask_ptr + n * length_k
    end = key_end(first_row, length_q, length_k, CAUSAL, BLOCK_Q)
    ridge = tl.load(ridge_ptr + n)
    q = load_rows(q_ptr + n * length_q * D, rows, length_q, dims, D).to(OPERAND)
    x = load_rows(x_ptr + n * length_q * D, rows, length_q, dims, D)
    kbar = load_rows(kbar_ptr + n * length_q * D, rows, length_q, dims, D)
    lse = tl.load(lse_ptr + n * length_q + rows, mask=inside, other=0.0)
    grad = load_rows(grad_ptr + n * length_q * DV, rows, length_q, value_dims, DV).to(OPERAND)
    out = load_rows(out_ptr + n * length_q * DV, rows, length_q, value_dims, DV)
    # Close to Gbar; taken out of G first, it keeps a common offset of the values out of T.
    guess = tl.sum(grad.to(tl.float32) * out.to(tl.float32), 1)

    right = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    excess = tl.zeros([BLOCK_Q], tl.float32)
    visible = tl.zeros([BLOCK_Q], tl.int32)
    for start in range(0, end, BLOCK_K):
        cols = start + tl.arange(0, BLOCK_K)
        k = load_rows(k_base, cols, length_k, dims, D).to(OPERAND)
        v = load_rows(v_base, cols, length_k, value_dims, DV).to(OPERAND)
        scores = score_tile(
            q, k, rows, cols, mask_base, length_q, length_k, scale_log2,
            CAUSAL, HAS_MASK, PRECISION,
        )  # fmt: skip
        visible += tl.sum((scores > float("-inf")).to(tl.int32), 1)
        w = tl.dot(grad, tl.trans(v), input_precision=PRECISION) - guess[:, None]
        w = w * tl.exp2(scores - lse[:, None])
        right += tl.dot(w, k.to(tl.float32), input_precision=PRECISION)
        excess += tl.sum(w, 1)
    mean = guess + excess
    # As in the forward kernel: a single key has no slope.
    right = tl.where((visible > 1)[:, None], right - excess[:, None] * kbar, 0.0)
    u, rr = solve(
        right, q, kbar, lse, ridge, k_base, mask_base, rows, dims, end, length_q, length_k,
        scale_log2, iterations, tolerance, D, CAUSAL, HAS_MASK, OPERAND, PRECISION, BLOCK_K,
    )  # fmt: skip
    size = tl.sum(right * right, 1)
    residual = tl.where(size > 0, tl.sqrt(rr / tl.where(size > 0, size, 1.0)), 0.0)

    x_offset = tl.sum(x * kbar, 1)
    u_offset = tl.sum(u * kbar, 1)
    dq = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    for start in range(0, end, BLOCK_K):
        cols = start + tl.arange(0, BLOCK_K)
        k = load_rows(k_base, cols, length_k, dims, D).to(OPERAND)
        v = load_rows(v_base, cols, length_k, value_dims, DV).to(OPERAND)
        scores = score_tile(
            q, k, rows, cols, mask_base, length_q, length_k, scale_log2,
            CAUSAL, HAS_MASK, PRECISION,
        )  # fmt: skip
        k32 = k.to(tl.float32)
        a = tl.dot(x, tl.trans(k32), input_precision=PRECISION) - x_offset[:, None]
        b = tl.dot(u, tl.trans(k32), input_precision=PRECISION) - u_offset[:, None]
        c = tl.dot(grad, tl.trans(v), input_precision=PRECISION) - mean[:, None] - b
        w = tl.exp2(scores - lse[:, None]) * (1.0 + a) * c
        dq += tl.dot(w, k32, input_precision=PRECISION)
        total += tl.sum(w, 1)
    dq = u + scale * (dq - total[:, None] * kbar)

    store_rows(dq_ptr + n * length_q * D, dq, rows, length_q, dims, D)
    store_rows(u_ptr + n * length_q * D, u, rows, length_q, dims, D)
    terms = terms_ptr + n * length_q * ROW_TERMS + rows
    tl.store(terms, x_offset, mask=inside)
    tl.store(terms + length_q, u_offset, mask=inside)
    tl.store(terms + 2 * length_q, mean, mask=inside)
    tl.store(terms + 3 * length_q, -total, mask=inside)
    tl.store(terms + 4 * length_q, -tl.sum(u * x, 1), mask=inside)
    tl.store(terms + 5 * length_q, residual, mask=inside)


@tuned(
    ({"BLOCK_Q": 32, "BLOCK_K": 32}, 4, 2),
    ({"BLOCK_Q": 32, "BLOCK_K": 64}, 4, 2),
    ({"BLOCK_Q": 32, "BLOCK_K": 64}, 8, 2),
    ({"BLOCK_Q": 64, "BLOCK_K": 64}, 8, 2),
    ({"BLOCK_Q": 32, "BLOCK_K": 128}, 8, 2),
    blocks=("BLOCK_Q", "BLOCK_K"),
)
@triton.jit  # type: ignore[untyped-decorator]
def _key_kernel(
    q_ptr: Any,
    k_ptr: Any,
    v_ptr: Any,
    mask_ptr: Any,
    x_ptr: Any,
    lse_ptr: Any,
    grad_ptr: Any,
    u_ptr: Any,
    terms_ptr: Any,
    dk_ptr: Any,
    dv_ptr: Any,
    length_q: Any,
    length_k: Any,
    bucket_q: Any,
    bucket_k: Any,
    scale: Any,
    scale_log2: Any,
    D: tl.constexpr,
    DV: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr,
    CAUSAL: tl.constexpr,
    HAS_MASK: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    ROW_TERMS: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    tiles = tl.cdiv(length_k, BLOCK_K)
    n = (tl.program_id(0) // tiles).to(tl.int64)
    first_col = (tl.program_id(0) % tiles) * BLOCK_K
    cols = first_col + tl.arange(0, BLOCK_K)
    dims = tl.arange(0, BLOCK_D)
    value_dims = tl.arange(0, BLOCK_V)
    mask_base = mask_ptr + n * length_k
    q_base = q_ptr + n * length_q * D
    x_base = x_ptr + n * length_q * D
    u_base = u_ptr + n * length_q * D
    grad_base = grad_ptr + n * length_q * DV
    terms_base = terms_ptr + n * length_q * ROW_TERMS
    k = load_rows(k_ptr + n * length_k * D, cols, length_k, dims, D).to(OPERAND)
    v = load_rows(v_ptr + n * length_k * DV, cols, length_k, value_dims, DV).to(OPERAND)
    k32 = k.to(tl.float32)
    first = 0
    if CAUSAL:
        first = tl.maximum(first_col - (length_k - length_q), 0) // BLOCK_Q * BLOCK_Q

    dk = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_K, BLOCK_V], tl.float32)
    for start in range(first, length_q, BLOCK_Q):
        rows = start + tl.arange(0, BLOCK_Q)
        inside = rows < length_q
        q = load_rows(q_base, rows, length_q, dims, D).to(OPERAND)
        lse = tl.load(lse_ptr + n * length_q + rows, mask=inside, other=0.0)
        scores = score_tile(
            q, k, rows, cols, mask_base, length_q, length_k, scale_log2,
            CAUSAL, HAS_MASK, PRECISION,
        )  # fmt: skip
        p = tl.exp2(scores - lse[:, None])

        x = load_rows(x_base, rows, length_q, dims, D)
        x_offset = tl.load(terms_base + rows, mask=inside, other=0.0)
        a = tl.dot(x, tl.trans(k32), input_precision=PRECISION) - x_offset[:, None]
        weight = p * (1.0 + a)
        grad = load_rows(grad_base, rows, length_q, value_dims, DV).to(OPERAND)
        dv += tl.dot(tl.trans(weight), grad.to(tl.float32), input_precision=PRECISION)

        u = load_rows(u_base, rows, length_q, dims, D)
        dk -= tl.dot(tl.trans(weight), u, input_precision=PRECISION)
        u_offset = tl.load(terms_base + length_q + rows, mask=inside, other=0.0)
        mean = tl.load(terms_base + 2 * length_q + rows, mask=inside, other=0.0)
        shift = tl.load(terms_base + 3 * length_q + rows, mask=inside, other=0.0)
        c = tl.dot(grad, tl.trans(v), input_precision=PRECISION) + (u_offset - mean)[:, None]
        c -= tl.dot(u, tl.trans(k32), input_precision=PRECISION)
        dk += tl.dot(tl.trans(p * c), x, input_precision=PRECISION)
        logits = scale * (weight * c + p * shift[:, None])
        dk += tl.dot(tl.trans(logits), q.to(tl.float32), input_precision=PRECISION)

    store_rows(dk_ptr + n * length_k * D, dk, cols, length_k, dims, D)
    store_rows(dv_ptr + n * length_k * DV, dv, cols, length_k, value_dims, DV)


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
    q, k, v, ridge = q.contiguous(), k.contiguous(), v.contiguous(), ridge.contiguous()
    grad = grad.to(v.dtype).contiguous()
    n, length_q, dim = q.shape
    length_k, dim_v = v.shape[1:]
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    u = torch.empty_like(forward.x)
    terms = u.new_zeros(n, _ROW_TERMS, length_q)
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
        "ROW_TERMS": _ROW_TERMS,
    }

    def query_grid(config: dict[str, int]) -> tuple[int]:
        return (triton.cdiv(length_q, config["BLOCK_Q"]) * n,)

    def key_grid(config: dict[str, int]) -> tuple[int]:
        return (triton.cdiv(length_k, config["BLOCK_K"]) * n,)

    if dq.numel():
        _query_kernel[query_grid](
            q, k, v, ridge, mask, forward.out, forward.x, forward.kbar, forward.lse, grad,
            dq, u, terms, *lengths, iterations, tolerance, **options,
        )  # fmt: skip
    if dk.numel():
        _key_kernel[key_grid](
            q, k, v, mask, forward.x, forward.lse, grad, u, terms, dk, dv, *lengths, **options
        )
    return Gradients(dq, dk, dv, terms[:, 4].sum(1), terms[:, 5])
