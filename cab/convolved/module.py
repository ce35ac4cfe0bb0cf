"""The same short convolution before any entry's queries, keys and values.

    x'_tc = sum_s w_sc x_(t+s)c,   s = -(W - 1) .. 0, or around 0

depthwise: each channel c has W weights of its own for queries, for keys and for values, and they
begin as those of a convolutional layer do. Mamba, DeltaNet and their successors have it, width 4,
in their layers; how much of what they give is the convolution's is told by putting it before others
(Allen-Zhu 2025, arXiv 2512.17351), or leaving it out. SiLU behind it belongs to the mechanisms.

Where a token may not look ahead - all of causal self attention, the queries of causal cross
attention - it covers the tokens before; elsewhere it is centred, an even width with one token more
before. Missing tokens are zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cab.attention_contract import Attention, AttentionSpec, build_attention
from cab.info import AttentionInfo

if TYPE_CHECKING:
    from cab.attention_context import AttentionContext
    from cab.attention_contract import AttentionShape


def convolved_class(inner: type[Attention], info: AttentionInfo, width: int) -> type[Attention]:
    """A class that builds entries of a class behind convolutions.

    Args:
        inner: the entry's class.
        info: of the new one.
        width: W.
    """

    class Convolved(ConvolvedAttention):
        calibrates = inner.calibrates
        surrogate_gradient = inner.surrogate_gradient

        def __init__(self, spec: AttentionSpec, **options: Any) -> None:
            super().__init__(spec, build_attention(inner, spec, options), width)

    Convolved.info = info
    if not hasattr(inner, "wire"):
        return Convolved

    wired: Any = inner

    class Wired(Convolved):
        """What it takes from elsewhere in the model, no convolution reaches."""

        @classmethod
        def wire(cls, model: nn.Module, slots: Sequence[Attention], task: Any) -> None:
            own = [slot.inner if isinstance(slot, ConvolvedAttention) else slot for slot in slots]
            wired.wire(model, own, task)

    return Wired


class ConvolvedAttention(Attention):
    """A mechanism behind one convolution each of q, k and v. It does not decode: a step would need
    the queries of the tokens before, which a prompt's keys and values do not tell.
    """

    def __init__(self, spec: AttentionSpec, inner: Attention, width: int) -> None:
        super().__init__(spec)
        self.inner = inner
        of_queries = spec.pattern.causal
        of_keys = spec.pattern.causal and not spec.pattern.cross
        self.q = ShortConvolution(spec.heads, spec.head_dim, width, of_queries)
        self.k = ShortConvolution(spec.heads, spec.head_dim, width, of_keys)
        self.v = ShortConvolution(spec.heads, spec.value_dim, width, of_keys)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`.

        Raises:
            NotImplementedError: fewer queries than keys in self attention: the tokens before the
                first query are not there.
        """
        return self._around(self.inner, q, k, v, context)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """The mechanism's, behind the same."""
        return self._around(self.inner.reference, q, k, v, context)

    def flops(self, shape: AttentionShape) -> float:
        """The mechanism's, and 2 W for each number of q, k and v."""
        queries = shape.length_q * shape.head_dim
        keys = shape.length_k * (shape.head_dim + shape.value_dim)
        rows = shape.batch * shape.heads
        return self.inner.flops(shape) + 2.0 * self.q.width * rows * (queries + keys)

    def auxiliary_loss(self) -> Tensor | None:
        """The mechanism's."""
        return self.inner.auxiliary_loss()

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The mechanism's."""
        return self.inner.parameter_groups()

    def _around(
        self,
        attend: Callable[..., Tensor],
        q: Tensor,
        k: Tensor,
        v: Tensor,
        context: AttentionContext | None,
    ) -> Tensor:
        if not self.pattern.cross and q.shape[-2] != k.shape[-2]:
            raise NotImplementedError(
                "a convolution of queries needs all of them: as many as keys in self attention"
            )
        return attend(self.q(q), self.k(k), self.v(v), context)


class ShortConvolution(nn.Module):
    """Over the tokens of (B, H, L, D), each channel of each head by itself."""

    def __init__(self, heads: int, channels: int, width: int, causal: bool) -> None:
        super().__init__()
        self.width, bound = width, width**-0.5
        self.weight = nn.Parameter(torch.empty(width, heads, 1, channels).uniform_(-bound, bound))
        before = width - 1 if causal else width // 2
        self.padding = before, width - 1 - before

    def forward(self, x: Tensor) -> Tensor:
        """In the dtype of x."""
        padded, length = F.pad(x, (0, 0, *self.padding)), x.shape[-2]
        weight = self.weight.to(x.dtype)
        # Products of shifted tokens: torch's grouped convolutions are far slower on a CPU.
        out = weight[0] * padded[..., :length, :]
        for s in range(1, self.width):
            out = torch.addcmul(out, weight[s], padded[..., s : s + length, :])
        return out
