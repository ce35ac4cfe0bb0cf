"""FlashAttention: softmax attention in one fused kernel (Dao et al. 2022, arXiv 2205.14135).

    o_i = sum_j exp(q_i·k_j / sqrt(D) - l_i) v_j,   l_i = log sum_j exp(q_i·k_j / sqrt(D))

computed tile by tile with a running maximum (algorithm 1), so that the matrix of scores is never in
memory. It is the same function as ``softmax``. That entry lets torch choose how to compute it, and
torch may choose the plain formula; this one admits only the fused kernels and says so where there
is none, so that a cost measured under this name is a fused kernel's.

The module of this name in CAB's library cannot be built (see ERRATA.md).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from attentions.softmax import SoftmaxAttention
from cab import (
    AttentionContext,
    AttentionInfo,
    AttentionSpec,
    Family,
    Grade,
    Kind,
    Option,
    Pattern,
    register_attention,
)

_BACKENDS = {
    "fused": [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION],
    "flash": [SDPBackend.FLASH_ATTENTION],
    "efficient": [SDPBackend.EFFICIENT_ATTENTION],
}
_NO_KERNEL = ("No available kernel", "No viable backend")
"""How torch says so."""


@register_attention(
    AttentionInfo(
        id="flash",
        family=Family.SOFTMAX,
        title="FlashAttention (fused kernels only)",
        formula="o_i = softmax_j(q_i·k_j / sqrt(D)) v_j",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.FAITHFUL,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.FAITHFUL,
            Pattern.CAUSAL_CROSS: Grade.FAITHFUL,
        },
        time="L^2 D",
        memory="L",
        paper="Dao et al., FlashAttention: Fast and Memory-Efficient Exact Attention with "
        "IO-Awareness",
        year=2022,
        url="https://arxiv.org/abs/2205.14135",
        kind=Kind.ATTENTION,
        options=(
            Option(
                "backend",
                "fused",
                "torch's flash kernel, its memory-efficient kernel, or whichever of them serves",
                choices=("fused", "flash", "efficient"),
            ),
        ),
    )
)
class FlashAttention(SoftmaxAttention):
    """Softmax attention by torch's flash or memory-efficient kernels, and by nothing else."""

    def __init__(self, spec: AttentionSpec, backend: str = "fused") -> None:
        super().__init__(spec)
        self.backend = backend

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`.

        Raises:
            NotImplementedError: no fused kernel serves this device, dtype or width of head.
        """
        # The kernels want values as wide as keys; columns of zeros change nothing.
        width = v.shape[-1]
        wide = max(width, q.shape[-1])
        scale = q.shape[-1] ** -0.5
        q, k, v = (
            F.pad(x, (0, wide - x.shape[-1])) if x.shape[-1] < wide else x for x in (q, k, v)
        )
        try:
            with sdpa_kernel(_BACKENDS[self.backend]):
                return self.fused(q, k, v, context, scale)[..., :width]
        except RuntimeError as error:
            if not any(words in str(error) for words in _NO_KERNEL):
                raise
            raise NotImplementedError(
                f"flash: torch has no {self.backend} attention kernel for {q.dtype} heads of "
                f"{wide} on {q.device.type}; `softmax` computes the same by any way there is"
            ) from None
