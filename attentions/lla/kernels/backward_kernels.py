"""The kernels of `attentions.lla.kernels.backward`, where their formulas are."""

# Triton compiles a kernel's annotations with it and knows no types of its arguments but constexpr.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

import triton
import triton.language as tl

from attentions.lla.kernels.common import (
    key_end,
    load_rows,
    score_tile,
    solve,
    store_rows,
    tuned,
)

ROW_TERMS = 6
"""Numbers per query row that the query kernel leaves: x·kbar, Gbar, s, u·kbar, -u·x, residual."""
PROBE_ROW_TERMS = 3
"""Without a solve, the first three of them."""


@tuned(
    ({"BLOCK_Q": 32, "BLOCK_K": 32}, 4, 2),
    ({"BLOCK_Q": 16, "BLOCK_K": 32}, 4, 1),
    ({"BLOCK_Q": 32, "BLOCK_K": 64}, 4, 2),
    ({"BLOCK_Q": 64, "BLOCK_K": 32}, 4, 2),
    ({"BLOCK_Q": 64, "BLOCK_K": 64}, 8, 2),
    ({"BLOCK_Q": 128, "BLOCK_K": 32}, 8, 2),
)
@triton.jit
def query_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    ridge_ptr,
    mask_ptr,
    out_ptr,
    x_ptr,
    kbar_ptr,
    lse_ptr,
    grad_ptr,
    dq_ptr,
    u_ptr,
    terms_ptr,
    length_q,
    length_k,
    bucket_q,
    bucket_k,
    scale,
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
    ROW_TERMS: tl.constexpr,
    SOLVE: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """dq, u and ROW_TERMS numbers per row, for one tile of queries of one sequence.

    Without SOLVE the right-hand side itself, which is the gradient of a given x, takes the place
    of u in memory, and ridge is not touched.
    """
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
    q = load_rows(q_ptr + n * length_q * D, rows, length_q, dims, D).to(OPERAND)
    x = load_rows(x_ptr + n * length_q * D, rows, length_q, dims, D).to(tl.float32)
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
    if SOLVE:
        # Squares of small right-hand sides (of rows that one key dominates) would underflow.
        peak = tl.max(tl.abs(right), 1)
        peak = tl.where(peak > 0, peak, 1.0)
        right = right / peak[:, None]
        u, rr = solve(
            right, q, kbar, lse, tl.load(ridge_ptr + n), k_base, mask_base, rows, dims, end,
            length_q, length_k, scale_log2, iterations, tolerance,
            D, CAUSAL, HAS_MASK, OPERAND, PRECISION, BLOCK_K,
        )  # fmt: skip
        u = u * peak[:, None]
        u_offset = tl.sum(u * kbar, 1)

    x_offset = tl.sum(x * kbar, 1)
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
        c = tl.dot(grad, tl.trans(v), input_precision=PRECISION) - mean[:, None]
        if SOLVE:
            c -= tl.dot(u, tl.trans(k32), input_precision=PRECISION) - u_offset[:, None]
        w = tl.exp2(scores - lse[:, None]) * (1.0 + a) * c
        dq += tl.dot(w, k32, input_precision=PRECISION)
        total += tl.sum(w, 1)
    dq = scale * (dq - total[:, None] * kbar)

    terms = terms_ptr + n * length_q * ROW_TERMS + rows
    tl.store(terms, x_offset, mask=inside)
    tl.store(terms + length_q, mean, mask=inside)
    tl.store(terms + 2 * length_q, -total, mask=inside)
    if SOLVE:
        dq += u
        size = tl.sum(right * right, 1)
        residual = tl.where(size > 0, tl.sqrt(rr / tl.where(size > 0, size, 1.0)), 0.0)
        tl.store(terms + 3 * length_q, u_offset, mask=inside)
        tl.store(terms + 4 * length_q, -tl.sum(u * x, 1), mask=inside)
        tl.store(terms + 5 * length_q, residual, mask=inside)
        store_rows(u_ptr + n * length_q * D, u, rows, length_q, dims, D)
    else:
        store_rows(u_ptr + n * length_q * D, right, rows, length_q, dims, D)
    store_rows(dq_ptr + n * length_q * D, dq, rows, length_q, dims, D)


@tuned(
    ({"BLOCK_Q": 32, "BLOCK_K": 32}, 4, 2),
    ({"BLOCK_Q": 16, "BLOCK_K": 32}, 4, 1),
    ({"BLOCK_Q": 32, "BLOCK_K": 64}, 4, 2),
    ({"BLOCK_Q": 32, "BLOCK_K": 64}, 8, 2),
    ({"BLOCK_Q": 64, "BLOCK_K": 64}, 8, 2),
    ({"BLOCK_Q": 32, "BLOCK_K": 128}, 8, 2),
)
@triton.jit
def key_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    mask_ptr,
    x_ptr,
    lse_ptr,
    grad_ptr,
    u_ptr,
    terms_ptr,
    dk_ptr,
    dv_ptr,
    length_q,
    length_k,
    bucket_q,
    bucket_k,
    scale,
    scale_log2,
    D: tl.constexpr,
    DV: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr,
    CAUSAL: tl.constexpr,
    HAS_MASK: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    ROW_TERMS: tl.constexpr,
    SOLVE: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Gradients of one tile of keys and values of one sequence; without SOLVE, u is not read."""
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

        x = load_rows(x_base, rows, length_q, dims, D).to(tl.float32)
        x_offset = tl.load(terms_base + rows, mask=inside, other=0.0)
        a = tl.dot(x, tl.trans(k32), input_precision=PRECISION) - x_offset[:, None]
        weight = p * (1.0 + a)
        grad = load_rows(grad_base, rows, length_q, value_dims, DV).to(OPERAND)
        dv += tl.dot(tl.trans(weight), grad.to(tl.float32), input_precision=PRECISION)

        mean = tl.load(terms_base + length_q + rows, mask=inside, other=0.0)
        shift = tl.load(terms_base + 2 * length_q + rows, mask=inside, other=0.0)
        c = tl.dot(grad, tl.trans(v), input_precision=PRECISION) - mean[:, None]
        if SOLVE:
            u = load_rows(u_base, rows, length_q, dims, D)
            u_offset = tl.load(terms_base + 3 * length_q + rows, mask=inside, other=0.0)
            dk -= tl.dot(tl.trans(weight), u, input_precision=PRECISION)
            c -= tl.dot(u, tl.trans(k32), input_precision=PRECISION) - u_offset[:, None]
        dk += tl.dot(tl.trans(p * c), x, input_precision=PRECISION)
        logits = scale * (weight * c + p * shift[:, None])
        dk += tl.dot(tl.trans(logits), q.to(tl.float32), input_precision=PRECISION)

    store_rows(dk_ptr + n * length_k * D, dk, cols, length_k, dims, D)
    store_rows(dv_ptr + n * length_k * DV, dv, cols, length_k, value_dims, DV)
