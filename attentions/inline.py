"""InLine attention: linear attention that subtracts, and a local residual (Han et al. 2024, arXiv
2412.06590).

    o_i = sum_j w_ij v_j + local_i
    w_ij = (c / N) phi(q_i)·(phi(k_j) - kbar) + 1 / N,   kbar = mean of phi(k_j),   c = D^(-1/2)

over the N keys j that row i sees, so that

    o_i = vbar + c phi(q_i)·Cov(phi(k), v) + local_i

Weights may be negative and those of a row add up to one. Linear attention divides by the sum of its
weights, and q and 2 q give the same; subtracting instead tells them apart (their injectivity).

The local residual is a depthwise convolution of the values, 3 wide, whose filter is made from the
sequence: r = W_2 GELU(W_1 x + b_1) + b_2 for a mean token x, with matrices of each head.

What differs from the authors' code, which is for images:

* one dimension, so 3 taps where they have 3 x 3;
* the mean token is that of the head's values, where theirs is of the layer's input: a linear map of
  it;
* the hidden layer of W_1 is a quarter as wide as the token, where theirs is as wide (preset
  ``published``): with the few heads of a small backbone the filters would be more than a tenth of
  its parameters;
* causally (adapted) all means are over the prefix, the filter is made from the mean of the values
  so far, and reaches back: over the token and the two before it;
* in cross attention queries and values have no common places, and there is no local residual.

Taps are of positions: those of the context, or else places in the sequence; a masked token is a
zero there and not in the means. Keys are taken relative to the first one that is valid, which
changes nothing but rounding: what all keys have in common cancels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.features import work_dtype
from attentions.shared.masks import visible
from attentions.shared.positions import at_positions, prompt_at_positions
from attentions.shared.prefix_products import summed_products, summed_products_flops
from attentions.shared.visible_means import visible_count, visible_sum
from cab import (
    Attention,
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

_TAPS = 3


@register_attention(
    AttentionInfo(
        id="inline",
        family=Family.LINEAR,
        title="InLine attention",
        formula="o_i = mean v + phi(q_i)·Cov(phi(k), v) / sqrt(D) + (r * v)_i, "
        "r a filter of 3 made from the values' mean",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.EXTENSION,
            Pattern.CAUSAL_SELF: Grade.ADAPTED,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L D^2",
        memory="L D",
        paper="Han et al., Bridging the Divide: Reconsidering Softmax and Linear Attention",
        year=2024,
        url="https://arxiv.org/abs/2412.06590",
        options=(
            Option(
                "features",
                "identity",
                "phi; exp is of 0.2 x",
                choices=("identity", "relu", "leaky-relu", "exp"),
            ),
            Option(
                "shrink", 4, "of the hidden layer that makes filters; 1: Dv wide", positive=True
            ),
        ),
        presets={"published": {"features": "identity", "shrink": 1}},
    )
)
class InLine(Attention):
    """The mean value, a covariance along the query, and a local residual in self attention."""

    def __init__(self, spec: AttentionSpec, features: str = "identity", shrink: int = 4) -> None:
        super().__init__(spec)
        self.features = features
        self.causal = spec.pattern is Pattern.CAUSAL_SELF
        if not spec.pattern.cross:
            heads, width = spec.heads, spec.value_dim
            hidden = max(1, width // shrink)
            self.first = _uniform(width, heads, width, hidden)
            self.first_bias = _uniform(width, heads, 1, hidden)
            self.second = _uniform(hidden, heads, hidden, _TAPS * width)
            self.second_bias = _uniform(hidden, heads, 1, _TAPS * width)

    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; sums are kept in float32 at least."""
        if self.pattern.cross:  # places play no part
            return self._global(q, k, v.to(work_dtype(v)), context)[0].to(v.dtype)
        out: Tensor = self._self(q, k, v, context)
        return out

    @at_positions
    def _self(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        values = v.to(work_dtype(v))
        out, mean = self._global(q, k, values, context)
        return (out + self._local(values, mean, q.shape[-2])).to(v.dtype)

    @without_autocast
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """The matrix of weights, and the residual tap by tap."""
        if self.pattern.cross:
            return self._weights(q, k, context) @ v
        out: Tensor = self._self_plainly(q, k, v, context)
        return out

    @at_positions
    def _self_plainly(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        seen = v.new_ones(1, 1, q.shape[-2], k.shape[-2])
        seen = seen if mask is None else seen * mask
        mean = seen @ v / seen.sum(-1, keepdim=True).clamp(min=1)
        out = self._weights(q, k, context) @ v
        taps = self._taps(mean)
        first = 0 if self.causal else 1
        places = torch.arange(q.shape[-2], device=q.device) + k.shape[-2] - q.shape[-2]
        for tap in range(_TAPS):
            place = places + tap + first - _TAPS + 1
            inside = ((place >= 0) & (place < k.shape[-2]))[:, None]
            out = out + taps[tap] * v[..., place.clamp(0, k.shape[-2] - 1), :] * inside
        return out.masked_fill(seen.sum(-1, keepdim=True) == 0, 0.0)

    @without_autocast
    @prompt_at_positions
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """Means of keys and values, covariance times count, the count, the last values."""
        values = v.to(work_dtype(v))
        keys = self._phi(k.to(values.dtype))
        valid = values.new_ones(len(v), 1, v.shape[-2], 1)
        if context is not None and context.key_mask is not None:
            valid = context.key_mask[:, None, :, None].to(values.dtype)
        count = valid.sum(-2, keepdim=True)
        mean_k, mean_v = (
            (x * valid).sum(-2, keepdim=True) / count.clamp(min=1) for x in (keys, values)
        )
        products = ((keys - mean_k) * valid).mT @ values
        tensors = {"k": mean_k, "v": mean_v, "products": products, "count": count}
        if not self.pattern.cross:
            # In front of the prompt there are zeros.
            tensors["last"] = F.pad(values, (0, 0, _TAPS - 1, 0))[..., v.shape[-2] :, :]
        return DecodeState(k.shape[-2], tensors)

    @without_autocast
    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """Take the token into means and covariance, if it has a key and value, and read them."""
        tensors, dtype = state.tensors, q_t.dtype
        if k_t is not None and v_t is not None:
            value = v_t.to(tensors["v"].dtype)
            count = tensors["count"] + 1
            off_k, off_v = self._phi(k_t.to(value.dtype)) - tensors["k"], value - tensors["v"]
            grown = tensors["products"] + (tensors["count"] / count) * off_k.mT @ off_v
            tensors |= {"k": tensors["k"] + off_k / count, "v": tensors["v"] + off_v / count}
            tensors |= {"products": grown, "count": count}
            tensors["last"] = torch.cat([tensors["last"], value], dim=-2)
            state.length += 1
        scale = self.spec.head_dim**-0.5 / tensors["count"].clamp(min=1)
        query = self._phi(q_t.to(tensors["v"].dtype))
        out = tensors["v"] + scale * (query @ tensors["products"])
        if not self.pattern.cross:
            last = tensors["last"]
            taps = self._taps(tensors["v"])
            out = out + sum(taps[i] * last[..., i : i + 1, :] for i in range(_TAPS))
            tensors["last"] = last[..., 1:, :]
        return out.to(dtype), state

    def state_size(self, length: int) -> int:
        """H (D Dv + D + Dv) numbers and a count; in self attention the last two values."""
        dim, width = self.spec.head_dim, self.spec.value_dim
        last = 0 if self.pattern.cross else (_TAPS - 1) * width
        return self.spec.heads * (dim * width + dim + width + last) + 1

    def flops(self, shape: AttentionShape) -> float:
        """Of the sums over keys, and in self attention of the filters and the convolution."""
        width = shape.value_dim
        total = summed_products_flops(shape, shape.head_dim, width, causal=self.causal)
        if not self.pattern.cross:
            rows = shape.batch * shape.heads
            filters = shape.length_q if self.causal else 1
            made = (1 + _TAPS) * width * self.first.shape[-1]
            total += 2 * rows * (filters * made + shape.length_q * _TAPS * width)
        return total

    def _global(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None
    ) -> tuple[Tensor, Tensor]:
        """The output without its local residual, and the mean of visible values."""
        query, keys = self._phi(q.to(v.dtype)), self._phi(k.to(v.dtype))
        if context is None or context.key_mask is None:
            keys = keys - keys[..., :1, :].detach()
        else:
            mask = context.key_mask
            first = mask.long().argmax(-1)[:, None, None, None].expand(-1, keys.shape[1], 1, 1)
            origin = keys.gather(2, first.expand(-1, -1, -1, keys.shape[-1])).detach()
            keys = (keys - origin).masked_fill(~mask[:, None, :, None], 0.0)
        length = q.shape[-2]
        count = visible_count(v, self.pattern, length, context).clamp(min=1)
        mean_k, mean_v = (visible_sum(x, self.pattern, length) / count for x in (keys, v))
        products = summed_products(query, keys, v, causal=self.causal) / count
        along = (query * mean_k).sum(-1, keepdim=True) * mean_v
        return mean_v + self.spec.head_dim**-0.5 * (products - along), mean_v

    def _weights(self, q: Tensor, k: Tensor, context: AttentionContext | None) -> Tensor:
        """(B, H, Lq, Lk) as the paper has them."""
        query, keys = self._phi(q), self._phi(k)
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        seen = torch.ones(1, 1, q.shape[-2], k.shape[-2], dtype=q.dtype, device=q.device)
        seen = seen if mask is None else seen * mask
        count = seen.sum(-1, keepdim=True).clamp(min=1)
        mean = seen @ keys / count
        along = (query * mean).sum(-1, keepdim=True)
        return ((query @ keys.mT - along) * self.spec.head_dim**-0.5 + 1) / count * seen

    def _local(self, v: Tensor, mean: Tensor, length_q: int) -> Tensor:
        """(B, H, Lq, Dv) filtered values; the mean (B, H, Lq or 1, Dv) makes the filters."""
        before = _TAPS - 1 if self.causal else _TAPS // 2
        padded = F.pad(v, (0, 0, before, _TAPS - 1 - before))
        start = v.shape[-2] - length_q
        out = torch.zeros_like(v[..., start:, :])
        for tap, factor in enumerate(self._taps(mean)):
            out = out + factor * padded[..., start + tap : start + tap + length_q, :]
        return out

    def _taps(self, mean: Tensor) -> tuple[Tensor, ...]:
        """Three factors (B, H, ..., Dv) of a value channel, from a mean token (B, H, ..., Dv)."""
        weights = (self.first, self.first_bias, self.second, self.second_bias)
        first, first_bias, second, second_bias = (x.to(mean.dtype) for x in weights)
        return (F.gelu(mean @ first + first_bias) @ second + second_bias).chunk(_TAPS, dim=-1)

    def _phi(self, x: Tensor) -> Tensor:
        if self.features == "relu":
            return x.relu()
        if self.features == "leaky-relu":
            return F.leaky_relu(x)
        return (0.2 * x).exp() if self.features == "exp" else x


def _uniform(width: int, *shape: int) -> nn.Parameter:
    """As linear layers of that many inputs begin."""
    return nn.Parameter(torch.empty(shape).uniform_(-(width**-0.5), width**-0.5))
