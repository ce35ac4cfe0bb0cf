"""Parallax on the Triton kernels of Local Linear Attention, differentiable.

Parallax (arXiv 2605.29157) is the mean-centred form of Local Linear Attention with the solution
x_i of the local system replaced by a probe that the model supplies. With the softmax weights p_ij
and kbar_i = sum_j p_ij k_j,

    o_i = sum_j p_ij (1 + a_ij) v_j,    a_ij = (k_j - kbar_i)·x_i

so nothing is solved for, and any x is served: x = 0 is softmax attention, x = C_i^-1 (q_i - kbar_i)
Local Linear Attention. Parallax writes rho for -x. With g = dL/do, G_ij = g_i·v_j and
Gbar_i = sum_j p_ij G_ij, the gradients are those of `attentions.lla.kernels.backward` with u = 0:

    dx_i = sum_j p_ij G_ij (k_j - kbar_i)
    dL/dlogit_ij = p_ij ((1 + a_ij) (G_ij - Gbar_i) + s_i),    s_i such that a row sums to zero
    dq_i = scale sum_j dL/dlogit_ij k_j
    dk_j = sum_i scale dL/dlogit_ij q_i + p_ij (G_ij - Gbar_i) x_i
    dv_j = sum_i p_ij (1 + a_ij) g_i

Forward and backward each take two sweeps over the keys per tile of queries; the backward takes one
over the queries per tile of keys besides. What rounding costs the gradients of q, k and x grows
with the largest |a_ij|: some 1e-7 of it, relative.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from attentions.lla.kernels.backward import launch_backward
from attentions.lla.kernels.common import SERVED_DTYPES, check_attention
from attentions.lla.kernels.forward import Forward, launch_forward
from attentions.shared.first_order import first_derivatives_only


class _LocalProbeTriton(Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        x: Tensor,
        key_mask: Tensor | None,
        options: dict[str, Any],
    ) -> Tensor:
        result = launch_forward(q, k, v, x, None, key_mask, **options)
        ctx.save_for_backward(q, k, v, key_mask, *result)
        ctx.options = options
        return result.out

    @staticmethod
    @first_derivatives_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, key_mask, *result = ctx.saved_tensors
        forward = Forward(*result)
        dx = torch.empty_like(forward.x)
        dq, dk, dv, _ = launch_backward(grad, q, k, v, None, key_mask, forward, dx, **ctx.options)
        return dq, dk, dv, dx, None, None


def local_probe_triton(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    x: Tensor,
    key_mask: Tensor | None = None,
    *,
    scale: float,
    causal: bool,
    precision: str = "ieee",
) -> Tensor:
    """Softmax attention corrected along a given probe; linear memory in Lq and Lk.

    Differentiable once, in q, k, v and x.

    Args:
        q: (N, Lq, D) queries, N = batch times heads, D <= 128; float32, bfloat16 or float16.
        k: (N, Lk, D). v: (N, Lk, Dv), Dv <= 128. Both in the dtype of q.
        x: (N, Lq, D) probes, in any of these dtypes; computed with in float32.
        key_mask: (N, Lk) bool, True where valid, or None.
        scale: factor of q·k in the exponent. The products with x are not scaled.
        causal: query i sees keys j <= i + Lk - Lq.
        precision: as in `attentions.lla.kernels.forward.local_linear_forward`.

    Returns:
        (N, Lq, Dv) in the dtype of v; zeros in a row that sees no key, the value itself in a row
        that sees one.

    Raises:
        ValueError: shapes, dtypes or head dims that the kernels do not serve.
    """
    check_attention(q, k, v, key_mask)
    if x.shape != q.shape:
        raise ValueError(f"one probe per query: x must be {tuple(q.shape)}, not {tuple(x.shape)}")
    if x.dtype not in SERVED_DTYPES:
        raise ValueError(f"the kernels compute in float32; they cannot serve probes in {x.dtype}")
    if key_mask is not None and key_mask.dtype != torch.bool:
        raise ValueError(f"key_mask must be bool, not {key_mask.dtype}")
    options = {"scale": scale, "causal": causal, "precision": precision}
    apply: Any = _LocalProbeTriton.apply
    return apply(q, k, v, x, key_mask, options)
