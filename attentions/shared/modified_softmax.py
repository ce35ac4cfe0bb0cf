"""Softmax attention whose map is modified after training."""

from __future__ import annotations

import torch
from torch import Tensor

from attentions.shared.autocast import without_autocast
from attentions.shared.masks import visible
from attentions.softmax import SoftmaxAttention, softmax_flops
from cab import Attention, AttentionContext, AttentionShape, AttentionSpec


class ModifiedSoftmax(Attention):
    """Plain softmax in training mode; in eval mode the heads that are switched on have their map
    modified by `modified_map`, which subclasses give.

    The map is needed as such, so eval mode takes the memory of all scores. There is no `step`: a
    modification of earlier rows could not be taken back.
    """

    switched: Tensor
    """(H,) bool"""

    def __init__(self, spec: AttentionSpec) -> None:
        super().__init__(spec)
        self.plain = SoftmaxAttention(spec)
        self.register_buffer("switched", torch.ones(spec.heads, dtype=torch.bool))

    def switches(self) -> Tensor:
        """See `cab.Attention.switches`."""
        return self.switched

    def modified_map(
        self, q: Tensor, k: Tensor, seen: Tensor, context: AttentionContext | None
    ) -> Tensor:
        """The modified weights.

        Args:
            q: (B, H, Lq, D). k: (B, H, Lk, D).
            seen: (B or 1, 1, Lq, Lk) bool, True where a query sees a key.
            context: of the call.

        Returns:
            (B, H, Lq, Lk); rows that see a key sum to one.
        """
        raise NotImplementedError

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`."""
        if self.training or not self.switched.any():
            return self.plain(q, k, v, context)
        modified = self._modified(q, k, v, context)
        if self.switched.all():
            return modified
        return torch.where(self.switched[:, None, None], modified, self.plain(q, k, v, context))

    @without_autocast
    def _modified(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None
    ) -> Tensor:
        """Which keys are modified is decided by comparisons: in half precision it is others."""
        weights = self.modified_map(q, k, self._seen(q, k, context), context)
        return weights.to(v.dtype) @ v

    def _seen(self, q: Tensor, k: Tensor, context: AttentionContext | None) -> Tensor:
        """(B or 1, 1, Lq, Lk) bool."""
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        if mask is None:
            mask = torch.ones(1, dtype=torch.bool, device=q.device)
        rows = mask.shape[:-2] if mask.ndim == 4 else (1, 1)
        return mask.expand(*rows, q.shape[-2], k.shape[-2])

    def flops(self, shape: AttentionShape) -> float:
        """2 B H Lq Lk (D + Dv): the whole matrix, masked or not."""
        return softmax_flops(shape, causal=False)


def wide_scores(q: Tensor, k: Tensor) -> Tensor:
    """(B, H, Lq, Lk) scores in at least single precision: their softmax is summed and compared."""
    wide = torch.promote_types(q.dtype, torch.float32)
    return q.to(wide) @ k.to(wide).mT * q.shape[-1] ** -0.5


def softmax_over(scores: Tensor, seen: Tensor) -> Tensor:
    """Softmax weights over the keys where ``seen`` is True; zeros where that is none."""
    return scores.masked_fill(~seen, -torch.inf).softmax(-1).masked_fill(~seen, 0.0)


def moved(scores: Tensor, weights: Tensor, source: Tensor, target: Tensor, kept: float) -> Tensor:
    """Scale the weights of ``source`` by ``kept`` and spread what that frees over ``target``, in
    proportion to the weights there. A row that sees no key of the target stays as it is.

    The proportions are a softmax of their own: the weights of the target may be so small beside the
    others that their sum underflows.

    Args:
        scores: (B, H, Lq, Lk), of which ``weights`` are the softmax.
        weights: (B, H, Lq, Lk).
        source, target: bool, of the same shape or broadcast to it; keys of ``target`` are seen.
        kept: factor between 0 and 1.
    """
    from_source = (1 - kept) * weights * source
    freed = from_source.sum(-1, keepdim=True)
    changed = weights - from_source + freed * softmax_over(scores, target)
    return torch.where(target.any(-1, keepdim=True), changed, weights)
