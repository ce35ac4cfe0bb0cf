"""Local Linear Attention on the Triton kernels, differentiable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.autograd import Function

from attentions.lla.kernels.backward import local_linear_backward
from attentions.lla.kernels.forward import Forward, local_linear_forward
from attentions.shared.first_order import first_derivatives_only

Watch = Callable[[Tensor, str], None]


class _LocalLinearTriton(Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        ridge: Tensor,
        key_mask: Tensor | None,
        options: dict[str, Any],
        watch: Watch | None,
    ) -> tuple[Tensor, Tensor]:
        result = local_linear_forward(q, k, v, ridge, key_mask, **options)
        ctx.save_for_backward(q, k, v, ridge, key_mask, *result)
        ctx.mark_non_differentiable(result.residual)
        ctx.options, ctx.watch = options, watch
        if watch is not None:
            watch(result.residual, "output")
        return result.out, result.residual

    @staticmethod
    @first_derivatives_only
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, ridge, key_mask, *result = ctx.saved_tensors
        g = local_linear_backward(grad, q, k, v, ridge, key_mask, Forward(*result), **ctx.options)
        if ctx.watch is not None:
            ctx.watch(g.residual, "gradients")
        return g.q, g.k, g.v, g.ridge, None, None, None


def local_linear_triton(
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
    watch: Watch | None = None,
) -> tuple[Tensor, Tensor]:
    """Local Linear Attention with gradients for q, k, v and ridge; linear memory in Lq and Lk.

    Args: see `attentions.lla.kernels.forward.local_linear_forward`, and

        watch: told the residuals of the solve for the "output" and of that for the "gradients".

    Returns:
        (N, Lq, Dv) output, zeros in a row that sees no key, and (N, Lq) float32 relative
        residuals |q - kbar - C x| / |q - kbar|. A residual well above the tolerance says that the
        iterations did not suffice, for the output and all the more for the gradients.
    """
    options = {
        "scale": scale,
        "causal": causal,
        "iterations": iterations,
        "tolerance": tolerance,
        "precision": precision,
    }
    apply: Any = _LocalLinearTriton.apply
    return apply(q, k, v, ridge, key_mask, options, watch)
