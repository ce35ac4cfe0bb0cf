"""What full attention of a shape takes, whatever mechanism is in its place: so that rates of
mechanisms that compute less can be read side by side.

Operations follow the convention of FlashAttention (Dao 2023, arXiv 2307.08691, section 4.1): the
two matrix products of a forward pass, 4 B H Lq Lk D, half of it under a causal mask; a backward
pass has five for these two, 2.5 times as much. Bytes are those that no kernel can avoid: q, k and v
are read and the output is written, once; in a backward pass the same are read, the output's
gradient too, and the gradients of q, k and v are written. A decoded token reads all keys and
values.
"""

from __future__ import annotations

from dataclasses import dataclass

from cab.patterns import Pattern

BACKWARD = 2.5
"""Operations of a backward pass over those of a forward pass"""
_SIZES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Geometry:
    """Sizes of a call, but for its lengths."""

    batch: int
    heads: int
    head_dim: int
    """Of queries, keys and values"""
    dtype: str
    """``float32``"""

    @property
    def title(self) -> str:
        """``batch 1, 4 heads of 32, float32``."""
        heads = f"{self.heads} head{'' if self.heads == 1 else 's'}"
        return f"batch {self.batch}, {heads} of {self.head_dim}, {self.dtype}"


def nominal_flops(
    geometry: Geometry, pattern: str, phase: str, length_q: int, length_k: int
) -> float:
    """Floating point operations of one call; in decoding of one token."""
    queries = 1 if phase == "decode" else length_q
    pairs = geometry.batch * geometry.heads * queries * float(length_k)
    halved = pattern == Pattern.CAUSAL_SELF.value and phase != "decode"
    forward = 4 * pairs * geometry.head_dim * (0.5 if halved else 1.0)
    return forward * (1 + BACKWARD) if phase == "forward_backward" else forward


def compulsory_bytes(geometry: Geometry, phase: str, length_q: int, length_k: int) -> float:
    """Bytes that any kernel moves in one call; in decoding of one token."""
    rows = geometry.batch * geometry.heads * geometry.head_dim * _SIZES[geometry.dtype]
    queries = 1 if phase == "decode" else length_q
    forward = float(rows * 2 * (queries + length_k))
    if phase != "forward_backward":
        return forward
    # Read: q, k, v, the output and its gradient. Written: the gradients of q, k and v.
    backward = rows * (2 * (queries + length_k) + 2 * queries + 2 * length_k)
    return forward + backward


def per_second(amount: float, latency: float) -> float:
    """A rate; not a number where no time is known."""
    return amount / latency if latency > 0 else float("nan")
