"""Decoding with Local Linear Attention: one pass over the cached keys and values per token.

For a single query the system C x = q - kbar is small enough to build: a program streams its share
of the cache once and accumulates the softmax-weighted moments

    l = sum w,  sum w k,  sum w v,  sum w k k^T,  sum w v k^T

with the keys taken relative to a reference near them, as a variance is the difference of two
large numbers where the mean exceeds the spread. The shares are merged and the system is solved by
Cholesky factorisation in torch. This reads the cache once, where conjugate gradients would read
it once per iteration.
"""

# Triton compiles a kernel's annotations with it and knows no types of its arguments but constexpr.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

import torch
import triton
import triton.language as tl
from torch import Tensor

from attentions.lla.kernels.common import (
    LOG2_E,
    bucket,
    check_inputs,
    load_rows,
    mask_bytes,
    on_device_of,
    store_rows,
    tuned,
)
from attentions.shared.spd import SpdSystems

_MIN_SHARE = 1024
"""Keys per program at least: its results are as large as D + Dv keys and values."""
_PROGRAMS_PER_PROCESSOR = 2


@tuned(
    ({"BLOCK_K": 32}, 4, 2),
    ({"BLOCK_K": 32}, 8, 2),
    ({"BLOCK_K": 64}, 4, 2),
    ({"BLOCK_K": 64}, 8, 2),
    key=("bucket_k", "D"),
)
@triton.jit
def _moment_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    mask_ptr,
    scalars_ptr,
    reference_ptr,
    key_ptr,
    value_ptr,
    key_key_ptr,
    value_key_ptr,
    length_k,
    bucket_k,
    share,
    shares,
    scale_log2,
    D: tl.constexpr,
    DV: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr,
    HAS_MASK: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Moments of one share of the keys of one sequence."""
    program = tl.program_id(0).to(tl.int64)
    n = program // shares
    first = (tl.program_id(0) % shares) * share
    last = tl.minimum(first + share, length_k)
    dims = tl.arange(0, BLOCK_D)
    value_dims = tl.arange(0, BLOCK_V)
    k_base = k_ptr + n * length_k * D
    v_base = v_ptr + n * length_k * DV
    mask_base = mask_ptr + n * length_k
    q = tl.load(q_ptr + n * D + dims, mask=dims < D, other=0.0).to(tl.float32)

    cols = first + tl.arange(0, BLOCK_K)
    valid = cols < last
    if HAS_MASK:
        valid = valid & (tl.load(mask_base + cols, mask=valid, other=0) != 0)
    k = load_rows(k_base, cols, last, dims, D).to(tl.float32)
    found = tl.sum(valid.to(tl.float32), 0)
    reference = tl.sum(tl.where(valid[:, None], k, 0.0), 0) / tl.maximum(found, 1.0)

    top = tl.max(tl.full([BLOCK_K], float("-inf"), tl.float32), 0)
    denominator = tl.sum(tl.zeros([BLOCK_K], tl.float32), 0)
    visible = tl.sum(tl.zeros([BLOCK_K], tl.float32), 0)
    key = tl.zeros([BLOCK_D], tl.float32)
    value = tl.zeros([BLOCK_V], tl.float32)
    key_key = tl.zeros([BLOCK_D, BLOCK_D], tl.float32)
    value_key = tl.zeros([BLOCK_V, BLOCK_D], tl.float32)
    for start in range(first, last, BLOCK_K):
        cols = start + tl.arange(0, BLOCK_K)
        valid = cols < last
        if HAS_MASK:
            valid = valid & (tl.load(mask_base + cols, mask=valid, other=0) != 0)
        k = load_rows(k_base, cols, last, dims, D).to(tl.float32)
        v = load_rows(v_base, cols, last, value_dims, DV).to(tl.float32)
        scores = tl.where(valid, tl.sum(k * q[None, :], 1) * scale_log2, float("-inf"))
        visible += tl.sum(valid.to(tl.float32), 0)
        highest = tl.maximum(top, tl.max(scores, 0))
        finite = tl.where(visible > 0, highest, 0.0)
        w = tl.exp2(scores - finite)
        decay = tl.exp2(top - finite)
        centred = k - reference[None, :]
        weighted = w[:, None] * centred
        denominator = denominator * decay + tl.sum(w, 0)
        key = key * decay + tl.sum(weighted, 0)
        value = value * decay + tl.sum(w[:, None] * v, 0)
        key_key = key_key * decay
        key_key += tl.dot(tl.trans(weighted), centred, input_precision=PRECISION)
        value_key = value_key * decay
        value_key += tl.dot(tl.trans(v), weighted, input_precision=PRECISION)
        top = highest

    tl.store(scalars_ptr + program * 3, top)
    tl.store(scalars_ptr + program * 3 + 1, denominator)
    tl.store(scalars_ptr + program * 3 + 2, visible)
    tl.store(reference_ptr + program * D + dims, reference, mask=dims < D)
    tl.store(key_ptr + program * D + dims, key, mask=dims < D)
    tl.store(value_ptr + program * DV + value_dims, value, mask=value_dims < DV)
    store_rows(key_key_ptr + program * D * D, key_key, dims, D, dims, D)
    store_rows(value_key_ptr + program * DV * D, value_key, value_dims, DV, dims, D)


def _share(q: Tensor, length_k: int) -> int:
    """Keys per program that keep all processors busy."""
    programs = _PROGRAMS_PER_PROCESSOR
    if q.is_cuda:
        programs *= torch.cuda.get_device_properties(q.device).multi_processor_count
    shares = max(1, programs // max(1, q.shape[0]))
    return max(_MIN_SHARE, triton.cdiv(length_k, shares))


def _merge(
    q: Tensor,
    ridge: Tensor,
    scalars: Tensor,
    reference: Tensor,
    key: Tensor,
    value: Tensor,
    key_key: Tensor,
    value_key: Tensor,
) -> Tensor:
    """(N, Dv) outputs from the moments (N, S, ...) of S shares of the keys."""
    top, denominator, visible = scalars.unbind(-1)
    highest = top.amax(1, keepdim=True)
    omega = torch.exp2(top - highest.masked_fill(visible.sum(1, keepdim=True) == 0, 0.0))
    omega = omega * denominator
    omega = omega / omega.sum(1, keepdim=True).masked_fill(visible.sum(1, keepdim=True) == 0, 1.0)
    inverse = 1.0 / denominator.masked_fill(visible == 0, 1.0)

    offset = key * inverse[..., None]
    share_v = value * inverse[..., None]
    share_k = reference + offset
    kbar = (omega[..., None] * share_k).sum(1)
    vbar = (omega[..., None] * share_v).sum(1)
    # Spread within the shares, then of the shares' means.
    spread = share_k - kbar[:, None]
    scaled = (omega * inverse)[..., None, None]
    within = omega[..., None] * offset
    between = omega[..., None] * spread
    covariance = (scaled * key_key).sum(1)
    covariance -= within.transpose(1, 2) @ offset
    covariance += between.transpose(1, 2) @ spread
    slope = (scaled * value_key).sum(1)
    slope -= share_v.transpose(1, 2) @ within
    slope += (share_v - vbar[:, None]).transpose(1, 2) @ between
    covariance.diagonal(dim1=1, dim2=2).add_(ridge[:, None])

    systems = SpdSystems(q.shape[1], q.shape[0], q)
    systems.matrix.copy_(covariance.permute(1, 2, 0))
    systems.right.copy_((q - kbar).T)
    x = systems.solve_().T
    # As in the forward kernel: a single key has no slope.
    x = x.masked_fill((visible.sum(1) < 2)[:, None], 0.0)
    return vbar + (slope @ x[..., None])[..., 0]


def local_linear_decode(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ridge: Tensor,
    key_mask: Tensor | None = None,
    *,
    scale: float,
    share: int | None = None,
    precision: str = "ieee",
) -> Tensor:
    """Local Linear Attention of one query per sequence, exact solve, without gradients.

    Args:
        q: (N, 1, D) queries, N = batch times heads, D <= 128; float32, bfloat16 or float16.
        k: (N, Lk, D) and v: (N, Lk, Dv), all visible but for the mask; Dv <= 128.
        ridge: (N,) float32, positive, relative to the total weight of a row.
        key_mask: (N, Lk) bool, True where valid, or None.
        scale: factor of q·k in the exponent.
        share: keys per program; by default what keeps the GPU busy.
        precision: as in `attentions.lla.kernels.forward.local_linear_forward`.

    Returns:
        (N, 1, Dv) in the dtype of v; zeros where no key is visible. Time O(N Lk D (D + Dv)), the
        cache read once.

    Raises:
        ValueError: shapes, dtypes or head dims that the kernel does not serve.
    """
    check_inputs(q, k, v, ridge, key_mask)
    if q.shape[1] != 1:
        raise ValueError(f"one query per sequence, not {q.shape[1]}")
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    n, length_k, dim = k.shape
    dim_v = v.shape[2]
    if n == 0 or length_k == 0:
        return v.new_zeros(n, 1, dim_v)
    share = share or _share(q, length_k)
    shares = triton.cdiv(length_k, share)
    shapes = ((3,), (dim,), (dim,), (dim_v,), (dim, dim), (dim_v, dim))
    moments = [ridge.new_empty(n, shares, *shape) for shape in shapes]
    with on_device_of(q):
        _moment_kernel[(n * shares,)](
            q, k, v, mask_bytes(key_mask, k), *moments,
            length_k, bucket(length_k), share, shares, scale * LOG2_E,
            D=dim, DV=dim_v, BLOCK_D=bucket(dim), BLOCK_V=bucket(dim_v),
            HAS_MASK=key_mask is not None, PRECISION=precision,
        )  # fmt: skip
    return _merge(q[:, 0].float(), ridge, *moments).to(v.dtype)[:, None]
