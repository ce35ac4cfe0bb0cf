"""Local Linear Attention of one query: one pass over the cached keys and values.

For a single query the moments fit in memory: with softmax weights p_j over the cache,

    kbar = sum_j p_j k_j,                      vbar = sum_j p_j v_j
    C = sum_j p_j (k_j - kbar)(k_j - kbar)^T + ridge I
    S = sum_j p_j v_j (k_j - kbar)^T
    o = vbar + S C^-1 (q - kbar)

which is O(Lk D (D + Dv)), the cache read once after the logits, where an iterative solve would
read it once per iteration.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attentions.lla.centre import centre_of
from attentions.lla.solvers import kernels_serve
from attentions.shared.autocast import without_autocast

_CHUNK = 1 << 22
"""Numbers of weighted keys held at a time: 16 MiB in float32."""


@without_autocast
def decode_local_linear(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ridge: Tensor,
    key_mask: Tensor | None = None,
    *,
    scale: float,
    kernels: bool = True,
) -> Tensor:
    """Local Linear Attention of the last token of each sequence.

    Args:
        q: (N, 1, D) queries, N = batch times heads. k: (N, Lk, D). v: (N, Lk, Dv).
        ridge: (N,) positive, relative to the total weight of a row.
        key_mask: (N, Lk) bool, True where valid, or None.
        scale: factor of q·k in the exponent.
        kernels: use the split-KV kernel on a GPU, where it serves the shapes and no gradient is
            asked for.

    Returns:
        (N, 1, Dv) in the dtype of v; zeros where no key is visible.
    """
    training = torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v, ridge))
    if kernels and q.is_cuda and not training and kernels_serve(q, v):
        from attentions.lla.kernels.decode import local_linear_decode

        return local_linear_decode(q, k, v, ridge.float(), key_mask, scale=scale)
    work = torch.promote_types(q.dtype, torch.float32)
    q, dim = q.to(work), k.shape[-1]
    centre = centre_of(k, key_mask).to(work)
    scores = torch.bmm(q, (k.to(work) - centre).transpose(1, 2)) * scale
    visible = scores.new_full((q.shape[0], 1, 1), k.shape[1])
    if key_mask is not None:
        scores = scores.masked_fill(~key_mask[:, None], float("-inf"))
        visible = key_mask.sum(1)[:, None, None]
    p = scores.softmax(-1).masked_fill(visible == 0, 0.0)

    # Row by row of [k, v]: weighted sums of k, and of k and v times k.
    mean = p.new_zeros(q.shape[0], 1, dim + v.shape[-1])
    moments = p.new_zeros(q.shape[0], dim, dim + v.shape[-1])
    chunk = max(1, _CHUNK // max(1, q.shape[0] * dim))
    for start in range(0, k.shape[1], chunk):
        part = slice(start, start + chunk)
        keys = k[:, part].to(work) - centre
        both = torch.cat([keys, v[:, part].to(work)], dim=-1)
        weight = p[:, :, part]
        mean = mean + torch.bmm(weight, both)
        moments = moments + torch.bmm((weight.transpose(1, 2) * keys).transpose(1, 2), both)
    kbar, vbar = mean[..., :dim], mean[..., dim:]
    moments = moments - kbar.transpose(1, 2) * mean
    matrix = moments[..., :dim] + torch.diag_embed(ridge.to(work)[:, None].expand(-1, dim))
    right = (q - centre - kbar).masked_fill(visible < 2, 0.0)
    factor, failed = torch.linalg.cholesky_ex(matrix)
    factor = factor.masked_fill((failed != 0)[:, None, None], float("nan"))
    x = torch.cholesky_solve(right.transpose(1, 2), factor)
    return (vbar + torch.bmm(x.transpose(1, 2), moments[..., dim:])).to(v.dtype)
