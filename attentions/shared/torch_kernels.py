"""Softmax attention by one kernel of torch's: what `cab bench` times others against by name.

The entry ``softmax`` takes the kernel that torch chooses; these take the one that they name, or
refuse. They compute the same function, so they are no entries: lists and boards do not have them.

Source: torch.nn.attention (`sdpa_kernel`, `SDPBackend`) and torch.nn.attention.flex_attention.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from attentions.softmax import SoftmaxAttention
from cab import AttentionContext, AttentionInfo, Family, Grade, Kind, Pattern


def _info(name: str, title: str) -> AttentionInfo:
    return AttentionInfo(
        id=name,
        family=Family.SOFTMAX,
        title=title,
        formula="o_i = softmax_j(q_i·k_j / sqrt(D)) v_j",
        patterns=dict.fromkeys(Pattern, Grade.FAITHFUL),
        time="L^2 D",
        memory="L",
        kind=Kind.CONTROL,
    )


class _SdpaKernel(SoftmaxAttention):
    """`torch.nn.functional.scaled_dot_product_attention`, held to one backend."""

    backend: ClassVar[SDPBackend]

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`.

        Raises:
            RuntimeError: torch has no such kernel for this device, dtype or shape.
        """
        with sdpa_kernel(self.backend):
            return self.fused(q, k, v, context, q.shape[-1] ** -0.5)


class FlashKernel(_SdpaKernel):
    """FlashAttention; on a CPU torch's own blockwise kernel."""

    info = _info("sdpa-flash", "Softmax attention (SDPA, flash)")
    backend = SDPBackend.FLASH_ATTENTION


class EfficientKernel(_SdpaKernel):
    """Memory-efficient attention (CUDA)."""

    info = _info("sdpa-efficient", "Softmax attention (SDPA, memory-efficient)")
    backend = SDPBackend.EFFICIENT_ATTENTION


class MathKernel(_SdpaKernel):
    """Matrix products and a softmax, the scores in memory."""

    info = _info("sdpa-math", "Softmax attention (SDPA, math)")
    backend = SDPBackend.MATH


class CudnnKernel(_SdpaKernel):
    """cuDNN's attention (CUDA, Hopper and later)."""

    info = _info("sdpa-cudnn", "Softmax attention (SDPA, cuDNN)")
    backend = SDPBackend.CUDNN_ATTENTION


class FlexKernel(SoftmaxAttention):
    """FlexAttention, compiled; its block mask is made once for each length, outside of timed calls
    but for the first. On a CPU torch has no backward pass of it.
    """

    info = _info("flex", "Softmax attention (FlexAttention, compiled)")

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`.

        Raises:
            NotImplementedError: there is a mask of keys, or there are several queries and more
                keys; or on a CPU, a gradient is asked for.
        """
        length_q, length_k = q.shape[-2], k.shape[-2]
        if context is not None and context.key_mask is not None:
            raise NotImplementedError("FlexAttention is timed without masks of keys")
        blocks = None
        # One query in causal self attention is the last: it sees every key.
        if self.pattern is Pattern.CAUSAL_SELF and length_q > 1:
            if length_q != length_k:
                raise NotImplementedError("FlexAttention is timed with as many queries as keys")
            blocks = _causal_blocks(length_q, q.device)
        return _compiled()(q, k, v, block_mask=blocks)


@cache
def _compiled() -> Callable[..., Any]:
    return torch.compile(flex_attention)


@cache
def _causal_blocks(length: int, device: torch.device) -> BlockMask:
    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return query >= key

    return create_block_mask(sees, None, None, length, length, device=str(device))
