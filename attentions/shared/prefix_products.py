"""Linear attention without a denominator: sums of values under products of features of any sign.

    s_i = sum_j (q_i·k_j) v_j = q_i S_i,   S_i = sum_j k_j v_j^T

over all keys j, or where causal over those up to the query. Causally S is a prefix sum over chunks,
and within a chunk the products are written out: O(L R (Dv + c)) time and O(L (c + R Dv / c))
memory for R features and chunks of c tokens. In plain torch operations, with derivatives of every
order. `attentions.shared.prefix_sums` divides by the sum of weights and keeps less for the backward
pass.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from cab import AttentionShape

_CHUNK = 64


def summed_products(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """(B, H, Lq, Dv) sums of the values under products with the query.

    Args:
        q: (B, H, Lq, R), in float32 at least. k: (B, H, Lk, R), zero where a key is masked.
        v: (B, H, Lk, Dv).
        causal: query i sees keys j <= i + Lk - Lq.
    """
    if not causal:
        return q @ (k.mT @ v)
    lag, length = k.shape[-2] - q.shape[-2], q.shape[-2]
    early = k[..., :lag, :].mT @ v[..., :lag, :]
    q, k, v = _chunks(q), _chunks(k[..., lag:, :]), _chunks(v[..., lag:, :])
    written = k.mT @ v
    entering = early[:, :, None] + F.pad(written[:, :, :-1].cumsum(2), (0, 0, 0, 0, 1, 0))
    out = (q @ k.mT).tril() @ v + q @ entering
    return out.flatten(2, 3)[..., :length, :]


def summed_products_flops(
    shape: AttentionShape, features: int, values: int, *, causal: bool
) -> float:
    """Of the sums over keys and their reading by queries, and causally of the chunks."""
    rows = shape.batch * shape.heads
    sums = 2 * rows * (shape.length_q + shape.length_k) * features * values
    within = 2 * rows * shape.length_q * _CHUNK * (features + values)
    return sums + within if causal else sums


def _chunks(x: Tensor) -> Tensor:
    """(B, H, n, c, D) of (B, H, L, D), filled up with zeros; at least one chunk."""
    length = max(1, x.shape[-2])
    return F.pad(x, (0, 0, 0, length + -length % _CHUNK - x.shape[-2])).unflatten(2, (-1, _CHUNK))
