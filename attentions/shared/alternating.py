"""Models that hold a mechanism in every other layer, and softmax attention in the rest."""

from __future__ import annotations

from torch import Tensor

from attentions.softmax import SoftmaxAttention
from cab import Attention, AttentionContext, AttentionShape, AttentionSpec


class Alternating(Attention):
    """With ``hybrid``, layers 0, 2, ... are softmax attention; the others, and without it all, are
    what a subclass gives as `mixed`, `mixed_plainly` and `mixing_flops`.
    """

    def __init__(self, spec: AttentionSpec, hybrid: bool) -> None:
        super().__init__(spec)
        self.plain = SoftmaxAttention(spec) if hybrid and spec.layer_index % 2 == 0 else None

    def mixed(self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None) -> Tensor:
        """See `cab.Attention.forward`."""
        raise NotImplementedError

    def mixed_plainly(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None
    ) -> Tensor:
        """See `cab.Attention.reference`."""
        raise NotImplementedError

    def mixing_flops(self, shape: AttentionShape) -> float:
        """See `cab.Attention.flops`."""
        raise NotImplementedError

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`."""
        if self.plain is not None:
            return self.plain(q, k, v, context)
        return self.mixed(q, k, v, context)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """The layer's own plain form."""
        if self.plain is not None:
            return self.plain.reference(q, k, v, context)
        return self.mixed_plainly(q, k, v, context)

    def flops(self, shape: AttentionShape) -> float:
        """Of the layer's own form."""
        return self.mixing_flops(shape) if self.plain is None else self.plain.flops(shape)
