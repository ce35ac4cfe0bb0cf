"""Attention by the exponential's Taylor polynomials; that of order two is a product of features.

    P(s) = 1 + s + s^2 / 2 = ((1 + s)^2 + 1) / 2 >= 1 / 2,   s = q·k / sqrt(D)

With y = x D^(-1/4), phi(x) = [1, y, y_a^2 / sqrt(2), y_a y_b for a < b] has phi(q)·phi(k) = P(s): a
square of D numbers has D (D + 1) / 2 different products, so there are R = 1 + D + D (D + 1) / 2
features (Arora et al. 2024, arXiv 2402.18668, keep both y_a y_b and y_b y_a). With more keys than
that the sums over keys come first.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attentions.shared.features import work_dtype
from attentions.shared.masks import visible
from attentions.shared.prefix_sums import linear_attention, linear_attention_flops, safe_divide
from cab import AttentionContext, AttentionShape, Pattern


def taylor_width(dim: int) -> int:
    """R, the number of features of keys of width D."""
    return 1 + dim + dim * (dim + 1) // 2


def taylor_features(x: Tensor, key_mask: Tensor | None = None) -> Tensor:
    """(B, H, L, R) features of (B, H, L, D), in float32 at least; zero where ``key_mask`` (B, L) is
    False.
    """
    dim = x.shape[-1]
    y = x.to(work_dtype(x)) * dim**-0.25
    first, second = torch.triu_indices(dim, dim, device=x.device).unbind()
    factor = y.new_ones(first.shape).masked_fill(first == second, 0.5**0.5)
    products = y[..., first] * y[..., second] * factor
    features = torch.cat((torch.ones_like(y[..., :1]), y, products), dim=-1)
    if key_mask is None:
        return features
    return features.masked_fill(~key_mask[:, None, :, None], 0.0)


def taylor_attention(
    q: Tensor, k: Tensor, v: Tensor, pattern: Pattern, context: AttentionContext | None
) -> Tensor:
    """(B, H, Lq, Dv) means of the values under P, the polynomial of order two, in the dtype of v.

    Where there are no more keys than features, which would then cost more, scores are written out.
    """
    if k.shape[-2] <= taylor_width(q.shape[-1]):
        return polynomial_attention(q, k, v, 2, pattern, context)
    mask = None if context is None else context.key_mask
    fq, fk = taylor_features(q), taylor_features(k, mask)
    causal = pattern is Pattern.CAUSAL_SELF
    return linear_attention(fq, fk, v.to(fk.dtype), causal=causal)[0].to(v.dtype)


def taylor_flops(shape: AttentionShape, *, causal: bool) -> float:
    """Of the sums over features, or of the matrix of weights."""
    width = taylor_width(shape.head_dim)
    if shape.length_k <= width:
        return polynomial_flops(shape, 2)
    return linear_attention_flops(shape, width, causal=causal)


def polynomial_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    order: int,
    pattern: Pattern,
    context: AttentionContext | None,
) -> Tensor:
    """The same for a polynomial of any even order, by Horner's rule on a matrix of scores.

    In float32 at least; in float64 above order two, where powers of negative scores cancel.
    """
    dtype = torch.float64 if order > 2 else work_dtype(v)
    scores = q.to(dtype) @ k.to(dtype).mT * q.shape[-1] ** -0.5
    weights = 1 + scores / order
    for power in range(order - 1, 0, -1):
        weights = 1 + scores * weights / power
    mask = visible(pattern, q.shape[-2], k.shape[-2], context, q.device)
    if mask is not None:
        weights = weights.masked_fill(~mask, 0.0)
    return safe_divide(weights @ v.to(dtype), weights.sum(-1, keepdim=True)).to(v.dtype)


def polynomial_flops(shape: AttentionShape, order: int) -> float:
    """Of scores, their powers and the means."""
    pairs = shape.batch * shape.heads * shape.length_q * shape.length_k
    return 2 * pairs * (shape.head_dim + shape.value_dim + order)
