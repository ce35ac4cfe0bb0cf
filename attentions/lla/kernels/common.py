"""Steps that the Local Linear Attention kernels share, and how they are tuned and launched.

The kernels never form the matrices C_i of the mean-centred system (see
`attentions.lla.cholesky`). They apply them to a vector y, a tile of keys at a time:

    C_i y = sum_j p_ij a_ij (k_j - kbar_i) + ridge y,    a_ij = (k_j - kbar_i)·y

which is two matrix products per tile besides the scores, and solve by conjugate gradients.
"""

# Triton compiles a kernel's annotations with it and knows no types of its arguments but constexpr.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

import contextlib
import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

INTERPRETED: bool = triton.knobs.runtime.interpret
"""Whether the kernels run in Triton's interpreter on the CPU, not on a GPU."""
SERVED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LOG2_E = math.log2(math.e)
_INTERPRETED_BLOCK = 32


def tuned(
    *configs: tuple[dict[str, int], int, int],
    key: tuple[str, ...] = ("bucket_q", "bucket_k", "D", "SOLVE"),
) -> Any:
    """Decorator: autotune over (block sizes, warps, stages) per value of the key's arguments.

    The key has lengths rounded up to powers of two, so that a growing sequence is not tuned anew
    at every step. The interpreter gets one small configuration, as timing it tells nothing.
    """
    if INTERPRETED:
        chosen = [triton.Config(dict.fromkeys(configs[0][0], _INTERPRETED_BLOCK))]
    else:
        chosen = [triton.Config(b, num_warps=w, num_stages=s) for b, w, s in configs]
    return triton.autotune(configs=chosen, key=list(key))


def bucket(length: int) -> int:
    """Length rounded up to a power of two, at least 16."""
    return max(16, triton.next_power_of_2(length))


def product_dtype(dtype: torch.dtype) -> Any:
    """Triton dtype of the operands of q·k: the inputs' own.

    The interpreter has no bfloat16 arithmetic; float32 gives the same products there.
    """
    if INTERPRETED or dtype == torch.float32:
        return tl.float32
    return {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}[dtype]


def check_inputs(q: Tensor, k: Tensor, v: Tensor, ridge: Tensor, key_mask: Tensor | None) -> None:
    """Raise ValueError where shapes or dtypes are not what the kernels read."""
    check_attention(q, k, v, key_mask)
    n = k.shape[0]
    if ridge.shape != (n,) or ridge.dtype != torch.float32:
        raise ValueError(f"ridge must be ({n},) float32, not {tuple(ridge.shape)} {ridge.dtype}")


def check_attention(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None) -> None:
    """The part of `check_inputs` that does not concern the solve."""
    n, length_k, dim = k.shape
    if q.shape[0] != n or q.shape[2] != dim or v.shape[:2] != (n, length_k):
        raise ValueError(f"shapes do not fit: q {q.shape}, k {k.shape}, v {v.shape}")
    if not q.dtype == k.dtype == v.dtype:
        raise ValueError(f"one dtype for q, k and v, not {q.dtype}, {k.dtype} and {v.dtype}")
    if q.dtype not in SERVED_DTYPES:
        raise ValueError(f"the kernels compute in float32; they cannot serve {q.dtype}")
    if key_mask is not None and key_mask.shape != (n, length_k):
        raise ValueError(f"key_mask must be ({n}, {length_k}), not {tuple(key_mask.shape)}")
    if max(dim, v.shape[2]) > 128:
        raise ValueError(f"head dims up to 128, not {dim} and {v.shape[2]}")


def on_device_of(tensor: Tensor) -> contextlib.AbstractContextManager[None]:
    """Triton launches on the current device, which need not be the tensors'."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


def mask_bytes(key_mask: Tensor | None, like: Tensor) -> Tensor:
    """(N, Lk) uint8 view of a key mask; without one any tensor, which is not read."""
    return like if key_mask is None else key_mask.contiguous().view(torch.uint8)


@triton.jit
def load_rows(base, rows, length, dims, D: tl.constexpr):
    """(rows, dims) tile of a (length, D) matrix, zeros outside of it."""
    inside = (rows < length)[:, None] & (dims < D)[None, :]
    return tl.load(base + rows[:, None] * D + dims[None, :], mask=inside, other=0.0)


@triton.jit
def store_rows(base, tile, rows, length, dims, D: tl.constexpr):
    """Store a (rows, dims) tile into a (length, D) matrix."""
    inside = (rows < length)[:, None] & (dims < D)[None, :]
    tl.store(base + rows[:, None] * D + dims[None, :], tile.to(base.dtype.element_ty), mask=inside)


@triton.jit
def score_tile(
    q,
    k,
    rows,
    cols,
    mask_base,
    length_q,
    length_k,
    scale_log2,
    CAUSAL: tl.constexpr,
    HAS_MASK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """(rows, cols) logits in units of log 2; -inf where the key is hidden."""
    visible = (rows < length_q)[:, None] & (cols < length_k)[None, :]
    if CAUSAL:
        visible = visible & (cols[None, :] <= rows[:, None] + (length_k - length_q))
    if HAS_MASK:
        valid = tl.load(mask_base + cols, mask=cols < length_k, other=0)
        visible = visible & (valid != 0)[None, :]
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale_log2
    return tl.where(visible, scores, float("-inf"))


@triton.jit
def key_end(first_row, length_q, length_k, CAUSAL: tl.constexpr, BLOCK_Q: tl.constexpr):
    """One past the last key that any row of a query tile sees."""
    end = length_k
    if CAUSAL:
        last = tl.minimum(first_row + BLOCK_Q, length_q)
        end = tl.maximum(last + length_k - length_q, 0)
    return end


@triton.jit
def solve(
    b,
    q,
    kbar,
    lse,
    ridge,
    k_base,
    mask_base,
    rows,
    dims,
    end,
    length_q,
    length_k,
    scale_log2,
    iterations,
    tolerance,
    D: tl.constexpr,
    CAUSAL: tl.constexpr,
    HAS_MASK: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Conjugate gradients on C_i x_i = b_i for a tile of rows: x and the residual |r|^2.

    A row stops by itself once |r| <= tolerance |b|; the tile stops with its last row. A row whose
    curvature y·Cy rounds to zero or below stops too: no further step of it can be trusted.
    """
    x = tl.zeros_like(b)
    r = b
    y = b
    rr = tl.sum(b * b, 1)
    target = rr * tolerance * tolerance
    active = rr > target
    left = tl.sum(active.to(tl.int32), 0)
    count = 0
    while (count < iterations) & (left > 0):
        offset = tl.sum(y * kbar, 1)
        cy = tl.zeros_like(b)
        total = tl.zeros_like(rr)
        for start in range(0, end, BLOCK_K):
            cols = start + tl.arange(0, BLOCK_K)
            k = load_rows(k_base, cols, length_k, dims, D).to(OPERAND)
            scores = score_tile(
                q, k, rows, cols, mask_base, length_q, length_k, scale_log2,
                CAUSAL, HAS_MASK, PRECISION,
            )  # fmt: skip
            k32 = k.to(tl.float32)
            # Centring the products before they meet the keys keeps C positive where the keys'
            # mean is far larger than their spread.
            w = tl.dot(y, tl.trans(k32), input_precision=PRECISION) - offset[:, None]
            w = w * tl.exp2(scores - lse[:, None])
            cy += tl.dot(w, k32, input_precision=PRECISION)
            total += tl.sum(w, 1)
        cy += ridge * y - total[:, None] * kbar
        curvature = tl.sum(y * cy, 1)
        active = active & (curvature > 0)
        alpha = tl.where(active, rr / tl.where(active, curvature, 1.0), 0.0)
        x += alpha[:, None] * y
        r -= alpha[:, None] * cy
        fresh = tl.where(active, tl.sum(r * r, 1), rr)
        beta = tl.where(active, fresh / tl.where(active, rr, 1.0), 0.0)
        y = r + beta[:, None] * y
        rr = fresh
        active = active & (rr > target)
        left = tl.sum(active.to(tl.int32), 0)
        count += 1
    return x, rr
