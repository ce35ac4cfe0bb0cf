"""Forward kernel of Local Linear Attention: three sweeps over the keys per tile of queries.

    1. online softmax:       lse_i and kbar_i
    2. conjugate gradients:  x_i = C_i^-1 (q_i - kbar_i), one sweep per iteration
    3. output:               o_i = sum_j p_ij (1 + (k_j - kbar_i)·x_i) v_j, and the residual of x_i

A probe (`attentions.lla.kernels.probe`) brings its own x: the same kernel without step 2.

Nothing of size Lq x Lk or L x D x D is ever stored: the memory is that of x, kbar and o.
"""

# Triton compiles a kernel's annotations with it and knows no types of its arguments but constexpr.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from attentions.lla.kernels.common import (
    LOG2_E,
    bucket,
    check_inputs,
    key_end,
    load_rows,
    mask_bytes,
    on_device_of,
    product_dtype,
    score_tile,
    solve,
    store_rows,
    tuned,
)


class Forward(NamedTuple):
    """What the forward kernel leaves; in float32 but for `out` and a probe's x."""

    out: Tensor
    """(N, Lq, Dv) in the dtype of v."""
    x: Tensor
    """(N, Lq, D) solutions of C x = q - kbar, or the probe."""
    kbar: Tensor
    """(N, Lq, D) softmax means of the keys."""
    lse: Tensor
    """(N, Lq) logarithms to base 2 of the softmax denominators; 0 in a row that sees no key."""
    residual: Tensor
    """(N, Lq) true relative residuals |q - kbar - C x| / |q - kbar|, computed afresh from x;
    empty, (0,), for a probe."""


@tuned(
    ({"BLOCK_Q": 32, "BLOCK_K": 32}, 4, 2),
    ({"BLOCK_Q": 16, "BLOCK_K": 32}, 4, 1),
    ({"BLOCK_Q": 32, "BLOCK_K": 64}, 4, 2),
    ({"BLOCK_Q": 64, "BLOCK_K": 32}, 4, 2),
    ({"BLOCK_Q": 64, "BLOCK_K": 64}, 8, 2),
    ({"BLOCK_Q": 128, "BLOCK_K": 32}, 8, 2),
)
@triton.jit
def _forward_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    ridge_ptr,
    mask_ptr,
    out_ptr,
    x_ptr,
    kbar_ptr,
    lse_ptr,
    residual_ptr,
    length_q,
    length_k,
    bucket_q,
    bucket_k,
    scale_log2,
    iterations,
    tolerance,
    D: tl.constexpr,
    DV: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr,
    CAUSAL: tl.constexpr,
    HAS_MASK: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    SOLVE: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One tile of queries of one sequence.

    Without SOLVE x is read, not written, and ridge and residual are not touched.
    """
    tiles = tl.cdiv(length_q, BLOCK_Q)
    n = (tl.program_id(0) // tiles).to(tl.int64)
    # The last tiles see the most keys: starting with them leaves the short ones to fill up.
    first_row = (tiles - 1 - tl.program_id(0) % tiles) * BLOCK_Q
    rows = first_row + tl.arange(0, BLOCK_Q)
    dims = tl.arange(0, BLOCK_D)
    value_dims = tl.arange(0, BLOCK_V)
    k_base = k_ptr + n * length_k * D
    v_base = v_ptr + n * length_k * DV
    mask_base = mask_ptr + n * length_k
    end = key_end(first_row, length_q, length_k, CAUSAL, BLOCK_Q)
    q = load_rows(q_ptr + n * length_q * D, rows, length_q, dims, D).to(OPERAND)

    top = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    denominator = tl.zeros([BLOCK_Q], tl.float32)
    visible = tl.zeros([BLOCK_Q], tl.int32)
    kbar = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    for start in range(0, end, BLOCK_K):
        cols = start + tl.arange(0, BLOCK_K)
        k = load_rows(k_base, cols, length_k, dims, D).to(OPERAND)
        scores = score_tile(
            q, k, rows, cols, mask_base, length_q, length_k, scale_log2,
            CAUSAL, HAS_MASK, PRECISION,
        )  # fmt: skip
        visible += tl.sum((scores > float("-inf")).to(tl.int32), 1)
        highest = tl.maximum(top, tl.max(scores, 1))
        # A row without a key so far has -inf here, and -inf - -inf would be NaN.
        finite = tl.where(visible > 0, highest, 0.0)
        w = tl.exp2(scores - finite[:, None])
        decay = tl.exp2(top - finite)
        denominator = denominator * decay + tl.sum(w, 1)
        kbar = kbar * decay[:, None] + tl.dot(w, k.to(tl.float32), input_precision=PRECISION)
        top = highest
    seen = visible > 0
    kbar = kbar / tl.where(seen, denominator, 1.0)[:, None]
    lse = tl.where(seen, top, 0.0) + tl.log2(tl.where(seen, denominator, 1.0))

    if SOLVE:
        ridge = tl.load(ridge_ptr + n)
        # One key fits exactly whatever the slope, and (q - k) / ridge would only amplify rounding.
        b = tl.where((visible > 1)[:, None], q.to(tl.float32) - kbar, 0.0)
        x, _ = solve(
            b, q, kbar, lse, ridge, k_base, mask_base, rows, dims, end, length_q, length_k,
            scale_log2, iterations, tolerance, D, CAUSAL, HAS_MASK, OPERAND, PRECISION, BLOCK_K,
        )  # fmt: skip
        cx = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
        total = tl.zeros([BLOCK_Q], tl.float32)
        weight_sum = tl.zeros([BLOCK_Q], tl.float32)
    else:
        x = load_rows(x_ptr + n * length_q * D, rows, length_q, dims, D).to(tl.float32)
        x = tl.where((visible > 1)[:, None], x, 0.0)

    offset = tl.sum(x * kbar, 1)
    out = tl.zeros([BLOCK_Q, BLOCK_V], tl.float32)
    for start in range(0, end, BLOCK_K):
        cols = start + tl.arange(0, BLOCK_K)
        k = load_rows(k_base, cols, length_k, dims, D).to(OPERAND)
        scores = score_tile(
            q, k, rows, cols, mask_base, length_q, length_k, scale_log2,
            CAUSAL, HAS_MASK, PRECISION,
        )  # fmt: skip
        p = tl.exp2(scores - lse[:, None])
        k32 = k.to(tl.float32)
        pa = p * (tl.dot(x, tl.trans(k32), input_precision=PRECISION) - offset[:, None])
        if SOLVE:
            cx += tl.dot(pa, k32, input_precision=PRECISION)
            total += tl.sum(pa, 1)
            weight_sum += tl.sum(p + pa, 1)
        v = load_rows(v_base, cols, length_k, value_dims, DV).to(tl.float32)
        out += tl.dot(p + pa, v, input_precision=PRECISION)
    if SOLVE:
        # The weights sum to one for any x; dividing takes out what rounding of `offset` added.
        # Those of a large probe are so large that the rounding of their sum would cost more.
        out = out / tl.where(seen, weight_sum, 1.0)[:, None]

    store_rows(out_ptr + n * length_q * DV, out, rows, length_q, value_dims, DV)
    store_rows(kbar_ptr + n * length_q * D, kbar, rows, length_q, dims, D)
    tl.store(lse_ptr + n * length_q + rows, lse, mask=rows < length_q)
    if SOLVE:
        gap = b - (cx + ridge * x - total[:, None] * kbar)
        bb = tl.sum(b * b, 1)
        residual = tl.where(bb > 0, tl.sqrt(tl.sum(gap * gap, 1) / tl.where(bb > 0, bb, 1.0)), 0.0)
        store_rows(x_ptr + n * length_q * D, x, rows, length_q, dims, D)
        tl.store(residual_ptr + n * length_q + rows, residual, mask=rows < length_q)


def local_linear_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ridge: Tensor,
    key_mask: Tensor | None = None,
    *,
    scale: float,
    causal: bool,
    iterations: int,
    tolerance: float,
    precision: str = "ieee",
) -> Forward:
    """Local Linear Attention without gradients.

    Args:
        q: (N, Lq, D) queries, N = batch times heads, D <= 128; float32, bfloat16 or float16.
        k: (N, Lk, D). v: (N, Lk, Dv), Dv <= 128.
        ridge: (N,) float32, positive, relative to the total weight of a row.
        key_mask: (N, Lk) bool, True where valid, or None.
        scale: factor of q·k in the exponent.
        causal: query i sees keys j <= i + Lk - Lq.
        iterations: conjugate-gradient steps at most; about sqrt(cond C) are needed.
        tolerance: a row stops at |r| <= tolerance |b|. Float32 reaches about 1e-6.
        precision: of products of float32 operands: "ieee"; "tf32x3", nearly as exact and on
            tensor cores; "tf32", for ridges of about 1 and more. 16-bit q and k enter their
            product as they are.

    Raises:
        ValueError: shapes, dtypes or head dims that the kernel does not serve.
    """
    check_inputs(q, k, v, ridge, key_mask)
    return launch_forward(
        q,
        k,
        v,
        None,
        ridge,
        key_mask,
        scale=scale,
        causal=causal,
        iterations=iterations,
        tolerance=tolerance,
        precision=precision,
    )


def launch_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    x: Tensor | None,
    ridge: Tensor | None,
    key_mask: Tensor | None,
    *,
    scale: float,
    causal: bool,
    iterations: int = 0,
    tolerance: float = 0.0,
    precision: str,
) -> Forward:
    """Run the kernel on checked inputs: with x (N, Lq, D) as given, or solved for with a ridge."""
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    n, length_q, dim = q.shape
    length_k, dim_v = v.shape[1:]
    out = v.new_empty(n, length_q, dim_v)
    kbar = torch.empty_like(q, dtype=torch.float32)
    lse = kbar.new_empty(n, length_q)
    solve_x = x is None
    x = torch.empty_like(kbar) if x is None else x.contiguous()
    residual = lse.new_empty((n, length_q) if solve_x else 0)
    ridge = lse.new_empty(0) if ridge is None else ridge.contiguous()
    if out.numel() == 0:
        return Forward(out, x, kbar, lse, residual)

    def grid(config: dict[str, int]) -> tuple[int]:
        return (triton.cdiv(length_q, config["BLOCK_Q"]) * n,)

    with on_device_of(q):
        _forward_kernel[grid](
            q, k, v, ridge, mask_bytes(key_mask, k), out, x, kbar, lse, residual,
            length_q, length_k, bucket(length_q), bucket(length_k),
            scale * LOG2_E, iterations, tolerance,
            D=dim, DV=dim_v, BLOCK_D=bucket(dim), BLOCK_V=bucket(dim_v),
            CAUSAL=causal, HAS_MASK=key_mask is not None,
            OPERAND=product_dtype(q.dtype), PRECISION=precision, SOLVE=solve_x,
        )  # fmt: skip
    return Forward(out, x, kbar, lse, residual)
