"""Second-order linear attention (Xue et al. 2025, arXiv 2510.11602, Approximate).

    mode based:     o_i = sum_j P(s_ij) v_j / sum_j P(s_ij),   P(s) = 1 + s + s^2 / 2
    mode separate:  o_i = o0 + o1 + o2
                    o0 = mean of v_j,   o1 = sum_j (q_i·k_j) v_j / sum_j q_i·k_j,
                    o2 = sum_j (q_i^2·k_j^2) v_j / sum_j q_i^2·k_j^2

over the keys j that row i sees; s_ij = q_i·k_j / sqrt(D), and q^2 squares every number. The paper
prints the terms of the exponential's Taylor series with a denominator each, as in ``separate``, and
cites Based (Arora et al. 2024, arXiv 2402.18668), which has one for all, as in ``based``; its text
was read from scanned pages, and no code of its authors was found, so which of the two was trained
is not confirmed. The size of the cache that it states is that of elementwise squares.

The denominator of o1 has any sign and can be as small as it likes: there an output is as large as
the denominator is small, beyond float16 and with a pole that no gradient passes. It is kept 1e-6
from zero, and its sums are taken in float64. So ``separate`` does not keep the contract, and
``based``, whose denominator is at least half the number of keys, is the default; it is the map of
`softmax-taylor` of order two.

The paper has it in all layers, or in odd ones alone (``hybrid``).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.shared.alternating import Alternating
from attentions.shared.autocast import without_autocast
from attentions.shared.features import work_dtype
from attentions.shared.masks import visible
from attentions.shared.prefix_products import summed_products, summed_products_flops
from attentions.shared.prefix_sums import (
    linear_attention,
    linear_attention_flops,
    read_sums,
    safe_divide,
    sums_of,
)
from attentions.shared.taylor import (
    taylor_attention,
    taylor_features,
    taylor_flops,
    taylor_width,
)
from attentions.shared.visible_means import visible_mean
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

_LEAST = 1e-6
"""Of the size of the denominator of o1."""


@register_attention(
    AttentionInfo(
        id="decon-approx",
        family=Family.LINEAR,
        title="Second-order linear attention",
        formula="o_i = sum_j P(s_ij) v_j / sum_j P(s_ij), P(s) = 1 + s + s^2 / 2, "
        "s_ij = q_i·k_j / sqrt(D)",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.EXTENSION,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L D^3",
        memory="L D^2",
        paper="Xue et al., Deconstructing Attention: Investigating Design Principles for Effective "
        "Language Modeling",
        year=2025,
        url="https://arxiv.org/abs/2510.11602",
        options=(
            Option(
                "mode",
                "based",
                "one denominator for all powers, or one for each",
                choices=("based", "separate"),
            ),
            Option("hybrid", False, "softmax attention in layers 0, 2, ..."),
        ),
    )
)
class DeconApprox(Alternating):
    """The first terms of the exponential's series as linear attention."""

    def __init__(self, spec: AttentionSpec, mode: str = "based", hybrid: bool = False) -> None:
        super().__init__(spec, hybrid)
        self.mode = mode

    @without_autocast
    def mixed(self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None) -> Tensor:
        """See `cab.Attention.forward`; sums are kept in float32 at least."""
        if self.mode == "based":
            return taylor_attention(q, k, v, self.pattern, context)
        causal = self.pattern is Pattern.CAUSAL_SELF
        dtype = work_dtype(v)
        values = v.to(dtype)
        mean = visible_mean(values, self.pattern, q.shape[-2], context)
        wide = F.pad(v.double(), (0, 1), value=1.0)
        first = _signed(summed_products(q.double(), k.double(), wide, causal=causal))
        squares = q.to(dtype).square(), k.to(dtype).square()
        second = linear_attention(*squares, values, causal=causal)[0]
        return (mean + first.to(dtype) + second).to(v.dtype)

    def mixed_plainly(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None
    ) -> Tensor:
        """The matrices of weights, written out."""
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        scores = q @ k.mT
        seen = torch.ones_like(scores) if mask is None else torch.ones_like(scores) * mask
        if self.mode == "based":
            scores = scores / q.shape[-1] ** 0.5
            weights = (1 + scores + scores**2 / 2) * seen
            return safe_divide(weights @ v, weights.sum(-1, keepdim=True))
        first, second = scores * seen, q**2 @ (k**2).mT * seen
        total = first.sum(-1, keepdim=True)
        bounded = torch.where(total < 0, total.clamp(max=-_LEAST), total.clamp(min=_LEAST))
        out = first @ v / bounded
        for weights in (seen, second):
            out = out + safe_divide(weights @ v, weights.sum(-1, keepdim=True))
        return out

    @without_autocast
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """Sums of values and of one, under features of every key."""
        if self.plain is not None:
            return self.plain.prefill(k, v, context)
        mask = None if context is None else context.key_mask
        return DecodeState(k.shape[-2], self._sums(k, v, mask))

    @without_autocast
    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """Add the token's key and value to the sums, if it has any, and read them."""
        if self.plain is not None:
            return self.plain.step(q_t, k_t, v_t, state, context)
        if k_t is not None and v_t is not None:
            for name, own in self._sums(k_t, v_t, None).items():
                state.tensors[name] = state.tensors[name] + own
            state.length += k_t.shape[-2]
        tensors = state.tensors
        if self.mode == "based":
            return read_sums(taylor_features(q_t), tensors["sums"]).to(q_t.dtype), state
        wide = q_t.to(tensors["zeroth"].dtype)
        out = read_sums(torch.ones_like(wide[..., :1]), tensors["zeroth"])
        out = out + _signed(q_t.double() @ tensors["first"]).to(out.dtype)
        return (out + read_sums(wide.square(), tensors["second"])).to(q_t.dtype), state

    def state_size(self, length: int) -> int:
        """H R (Dv + 1) numbers, with separate denominators H (2 D + 1) (Dv + 1)."""
        if self.plain is not None:
            return self.plain.state_size(length)
        dim = self.spec.head_dim
        rank = taylor_width(dim) if self.mode == "based" else 2 * dim + 1
        return self.spec.heads * rank * (self.spec.value_dim + 1)

    def mixing_flops(self, shape: AttentionShape) -> float:
        """Of the sums over features."""
        causal, dim = self.pattern is Pattern.CAUSAL_SELF, shape.head_dim
        if self.mode == "based":
            return taylor_flops(shape, causal=causal)
        products = summed_products_flops(shape, dim, shape.value_dim + 1, causal=causal)
        return products + linear_attention_flops(shape, dim, causal=causal)

    def _sums(self, k: Tensor, v: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """(B, H, R, Dv + 1) sums over keys, by the power of the score."""
        if self.mode == "based":
            return {"sums": sums_of(taylor_features(k, mask), v)}
        wide = k.to(work_dtype(k))
        ones = torch.ones_like(wide[..., :1])
        if mask is not None:
            ones = ones.masked_fill(~mask[:, None, :, None], 0.0)
        return {
            "zeroth": sums_of(ones, v),
            "first": sums_of(k.double(), v.double()),
            "second": sums_of(wide.square(), v),
        }


def _signed(sums: Tensor) -> Tensor:
    """Sums of values (..., :-1) by a sum of weights (..., -1) of any sign, kept from zero."""
    total = sums[..., -1:]
    bounded = torch.where(total < 0, total.clamp(max=-_LEAST), total.clamp(min=_LEAST))
    return sums[..., :-1] / bounded
