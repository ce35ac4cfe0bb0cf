"""Affine-scaled attention: softmax weights scaled and shifted (Bae et al. 2026, arXiv 2602.23057).

    o_i = sum_j (a_i p_ij + b_i) v_j,   b_i = (A - a_i) / N_i
        = a_i softmax_i + (A - a_i) mean_i,   a_i = clip(0.1 w·x_i + 0.5, 0, 1)

over the N_i keys j that row i sees; p are softmax weights, mean_i is that of the visible values,
and the scale a_i is one number for every head and query, from the layer's input. A is a running
mean of the scales of training, A <- 0.9 A + 0.1 mean(a). Weights may be negative, and those of a
row add up to A.

The paper leaves some of this open, and no code of its authors was found:

* N is the number of keys that a row sees. Its figure of row sums fits N = the sequence's length,
  with which an output would depend on how long the sequence is;
* A is a number of each head, has no gradient, and a training pass uses it as the passes before
  have left it: with its own tokens in it, an early output would depend on later tokens;
* padded queries are not in mean(a), padded keys have no share;
* w is zero at first, so all scales start at 1/2.

In the paper A starts at 0 (preset ``paper``), and the first passes see softmax attention less the
mean; what is left where the weights are nearly uniform is rounding. Here A starts at 1/2, what the
scales are at first. After a few dozen passes there is no difference.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attentions.shared.exact import exact_softmax
from attentions.shared.masks import visible
from attentions.shared.visible_means import visible_mean
from attentions.softmax import SoftmaxAttention
from cab import (
    AttentionContext,
    AttentionInfo,
    AttentionShape,
    AttentionSpec,
    DecodeState,
    Family,
    Grade,
    Option,
    Pattern,
    register_attention,
)

_SLOPE, _MIDDLE = 0.1, 0.5


@register_attention(
    AttentionInfo(
        id="affine-scaled",
        family=Family.SOFTMAX,
        title="Affine-scaled attention",
        formula="o_i = a_i softmax_j(q_i·k_j / sqrt(D)) v_j + (A - a_i) mean(v), "
        "a_i = clip(0.1 w·x_i + 0.5, 0, 1), A a running mean of a",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.EXTENSION,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L^2 D",
        memory="L",
        paper="Bae et al., Affine-Scaled Attention: Towards Flexible and Stable Transformer "
        "Attention",
        year=2026,
        url="https://arxiv.org/abs/2602.23057",
        options=(
            Option("momentum", 0.9, "share of A that a training pass keeps, below 1", least=0),
            Option("start", 0.5, "A before the first training pass", least=0),
        ),
        presets={"paper": {"momentum": 0.9, "start": 0.0}},
    )
)
class AffineScaled(SoftmaxAttention):
    """Softmax attention scaled, and the mean value; needs the layer input in its context."""

    average: Tensor
    """(H,) A"""

    def __init__(self, spec: AttentionSpec, momentum: float = 0.9, start: float = _MIDDLE) -> None:
        super().__init__(spec)
        if not momentum < 1:
            raise ValueError(f"momentum must be below 1, not {momentum}")
        self.momentum = momentum
        width = spec.embed_dim or spec.heads * spec.head_dim
        self.scale = nn.Linear(width, spec.heads, bias=False)
        nn.init.zeros_(self.scale.weight)
        self.register_buffer("average", torch.full((spec.heads,), start))

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`.

        Raises:
            ValueError: the context has no ``query_input`` to take the scales from.
        """
        scales, average = self._scales(context)
        mean = visible_mean(v, self.pattern, q.shape[-2], context)
        out = self._mixed(self.fused(q, k, v, context, q.shape[-1] ** -0.5), mean, scales, average)
        if self.training:
            self._take_in(scales.detach(), context)
        return out.to(v.dtype)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """The matrix of weights, scaled and shifted."""
        scales, average = self._scales(context)
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        weights = exact_softmax(q, k, mask)
        seen = torch.ones_like(weights) if mask is None else mask.to(weights.dtype)
        shift = (average - scales) / seen.sum(-1, keepdim=True).clamp(min=1)
        return ((scales * weights + shift * seen) @ v).to(v.dtype)

    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """Keys and values, the sum of the values (B, H, 1, Dv) and how many there are, (B,)."""
        state = super().prefill(k, v, context)
        count = torch.full((k.shape[0],), k.shape[-2], device=k.device)
        if context is not None and context.key_mask is not None:
            count = context.key_mask.sum(-1)
        wide = torch.promote_types(v.dtype, torch.float32)
        state.tensors |= {"sum": v.to(wide).sum(-2, keepdim=True), "count": count}
        return state

    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """Softmax attention to the cache, and the mean of its values."""
        scales, average = self._scales(context)
        tensors = state.tensors
        if v_t is not None:
            tensors["sum"] = tensors["sum"] + v_t
            tensors["count"] = tensors["count"] + 1
        softmax, state = super().step(q_t, k_t, v_t, state, context)
        mean = tensors["sum"] / tensors["count"].clamp(min=1)[:, None, None, None]
        return self._mixed(softmax, mean, scales, average).to(softmax.dtype), state

    def attend_once(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Softmax attention of one query to the cache."""
        return self.fused(q, k, v, context, q.shape[-1] ** -0.5)

    def state_size(self, length: int) -> int:
        """H (L (D + Dv) + Dv) numbers, and how many values there are."""
        heads, width = self.spec.heads, self.spec.head_dim + self.spec.value_dim
        return heads * (length * width + self.spec.value_dim) + 1

    def flops(self, shape: AttentionShape) -> float:
        """Those of softmax attention, of the scales and of the mean."""
        rows, width = shape.batch * shape.length_q, self.scale.in_features
        values = shape.batch * shape.heads * shape.value_dim
        scales = 2 * rows * shape.heads * width
        return super().flops(shape) + scales + values * (shape.length_k + 4 * shape.length_q)

    def _scales(self, context: AttentionContext | None) -> tuple[Tensor, Tensor]:
        """The scales (B, H, Lq, 1), and A (H, 1, 1)."""
        if context is None or context.query_input is None:
            raise ValueError(
                "affine-scaled takes its scales from the layer's input: call it with "
                "context=AttentionContext(query_input=x), x of shape (B, Lq, E)"
            )
        z = self.scale(context.query_input.to(self.scale.weight.dtype))
        wide = torch.promote_types(z.dtype, torch.float32)
        scales = (_SLOPE * z.to(wide) + _MIDDLE).clamp(0.0, 1.0)
        return scales.transpose(1, 2).unsqueeze(-1), self.average.to(wide)[:, None, None]

    @staticmethod
    def _mixed(softmax: Tensor, mean: Tensor, scales: Tensor, average: Tensor) -> Tensor:
        return scales * softmax.to(mean.dtype) + (average - scales) * mean

    def _take_in(self, scales: Tensor, context: AttentionContext | None) -> None:
        """Move A towards the mean of the scales of valid queries."""
        mask = None
        if context is not None:
            mask = context.query_mask
            if mask is None and not self.pattern.cross and context.key_mask is not None:
                mask = context.key_mask[:, context.key_mask.shape[-1] - scales.shape[-2] :]
        if mask is None:
            mean = scales.mean((0, 2, 3))
        elif not mask.any():
            return
        else:
            valid = mask[:, None, :, None].to(scales.dtype)
            mean = (scales * valid).sum((0, 2, 3)) / valid.sum()
        # Anew and not in place: autograd may hold the old one.
        self.average = torch.lerp(mean.to(self.average.dtype), self.average, self.momentum)
