"""Softmax attention with a first-order correction along a given probe.

    o_i = sum_j p_ij (1 + (k_j - kbar_i)·x_i) v_j

It is the last step of Local Linear Attention (`attentions.lla.regression`) with x given instead of
solved for, and so is its gradient: that of the solve with u = 0, where T is the gradient of x.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attentions.lla.centre import centre_of
from attentions.lla.regression import RowGradients, corrected_output, mean_regressors
from attentions.lla.solvers import kernel_precision, kernels_serve
from attentions.lla.tiles import Tiles
from attentions.shared.autocast import without_autocast
from attentions.shared.first_order import first_derivatives_only


class _Probe(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, x: Tensor, options: dict[str, Any]
    ) -> Tensor:
        tiles = Tiles(q, k, system=k.shape[2], **options)
        out = v.new_empty(q.shape[0], q.shape[1], v.shape[2])
        for t in tiles:
            p = tiles.weights(t)
            mean = mean_regressors(t, p, k)
            out[t.query_rows] = corrected_output(tiles, t, p, k, mean, x[t.query_rows], v)
        ctx.save_for_backward(q, k, v, x, out)
        ctx.options = options
        return out

    @staticmethod
    @first_derivatives_only
    @without_autocast
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, x, out = ctx.saved_tensors
        tiles = Tiles(q, k, system=k.shape[2], **ctx.options)
        gradients = RowGradients(tiles, k, v)
        dx = torch.empty_like(x)
        for t in tiles:
            g = grad[t.query_rows]
            p = tiles.weights(t)
            mean = mean_regressors(t, p, k)
            dx[t.query_rows] = gradients.right(t, p, g, out[t.query_rows], mean)
            gradients.add(t, p, g, mean, x[t.query_rows], None)
        dk, _, dv = gradients.keys()
        return gradients.dq, dk, dv, dx, None


@without_autocast
def local_probe(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    x: Tensor,
    key_mask: Tensor | None = None,
    *,
    scale: float,
    causal: bool,
) -> Tensor:
    """Probed softmax attention of heads folded into the batch; in fused kernels on a GPU.

    Args:
        q: (N, Lq, D) queries, N = batch times heads. k: (N, Lk, D). v: (N, Lk, Dv).
        x: (N, Lq, D) probes.
        key_mask: (N, Lk) bool, True where valid, or None.
        scale: factor of q·k in the exponent.
        causal: query i sees keys j <= i + Lk - Lq.

    Returns:
        (N, Lq, Dv) in the dtype of v; zeros in a row that sees no key. Time O(Lq Lk D), memory
        besides inputs and outputs that of one tile of weights.
    """
    if q.is_cuda and kernels_serve(q, v):
        from attentions.lla.kernels.probe import local_probe_triton

        precision = kernel_precision(q)
        return local_probe_triton(
            q, k, v, x, key_mask, scale=scale, causal=causal, precision=precision
        )
    work = torch.promote_types(q.dtype, torch.float32)
    keys = k.to(work)
    keys = keys - centre_of(keys, key_mask)
    options = {"key_mask": key_mask, "scale": scale, "causal": causal}
    apply: Any = _Probe.apply
    return apply(q.to(work), keys, v.to(work), x.to(work), options).to(v.dtype)
