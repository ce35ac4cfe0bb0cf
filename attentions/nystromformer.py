"""Nyströmformer: softmax attention by the Nyström method (Xiong et al. 2021, arXiv 2102.03902).

    O = F A⁺ (G V)                                                   (Lq, Dv)
    F = softmax(Q K~ᵀ / sqrt(D))  (Lq, m)      A = softmax(Q~ K~ᵀ / sqrt(D))  (m, m)
    G = softmax(Q~ Kᵀ / sqrt(D))  (m, Lk)

The landmarks Q~, K~ (m, D) are means of m contiguous segments of the queries and of the keys
(algorithm 1). A⁺ is approximated by a fixed number of steps of a third-order iteration that needs
no decomposition:

    Z <- Z (13 I - A Z (15 I - A Z (7 I - A Z))) / 4,    Z_0 = Aᵀ / (|A|_1 |A|_inf)

Six steps, as published, do not converge: A is nearly singular where landmarks are alike, and the
early stop is what bounds the weights F Z G, which may be negative and need not sum to one. Where no
landmark stands for more than one key, as with at most m keys, the result is exact softmax
attention, as in CAB's code.

Segments are of positions, masked tokens counted (`attentions.shared.segments`), and so is time in
the convolution.

What differs from CAB's code, which follows theirs:

* queries and keys are scaled by D^-1/4 each; CAB scales both by D^-1/2, so that its softmax is of
  q·k / D;
* Z_0 is normalised per matrix; theirs has one maximum over the batch and the heads, which makes the
  output of a row depend on what else is in the batch;
* landmarks are means over the valid tokens; theirs count masked ones as zeros.

The product of F with the (m, Dv) rest costs L m Dv; CAB forms F A⁺ first, another L m^2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.averaging import segment_averaging
from attentions.shared.exact import exact_softmax, exact_softmax_attention
from attentions.shared.first_order import first_derivatives_only
from attentions.shared.positions import at_positions
from attentions.shared.segments import Segments
from attentions.shared.softmax_means import softmax_means
from cab import (
    Attention,
    AttentionContext,
    AttentionInfo,
    AttentionShape,
    AttentionSpec,
    Family,
    Grade,
    Option,
    Pattern,
    register_attention,
)


def iterative_pinv(a: Tensor, iterations: int) -> Tensor:
    """(..., J, I) pseudo-inverse of matrices (..., I, J) of non-negative rows that sum to 1 or 0.

    Every singular value s of A Z_0 lies in [0, 1], and a step maps it closer to 1, so the iteration
    is stable for any A; a matrix of zeros stays one.
    """
    shape, a = a.shape, a.flatten(0, -3)
    # The largest row sum is 1; the largest column sum is at least 1 / J unless A is zero.
    z = a.mT / a.sum(-2).amax(-1).clamp(min=1.0 / shape[-1])[:, None, None]
    identity = torch.eye(shape[-2], dtype=a.dtype, device=a.device)
    for _ in range(iterations):
        az = a @ z
        inner = torch.baddbmm(15 * identity, az, 7 * identity - az, alpha=-1)
        inner = torch.baddbmm(13 * identity, az, inner, alpha=-1)
        z = torch.baddbmm(z, z, inner, beta=0, alpha=0.25)
    return z.unflatten(0, shape[:-2])


@register_attention(
    AttentionInfo(
        id="nystromformer",
        family=Family.LOW_RANK,
        title="Nyströmformer",
        formula="o_i = f_i A⁺ (G V), f_i = softmax(q_i K~ᵀ / sqrt(D)), A = softmax(Q~ K~ᵀ / "
        "sqrt(D)), G = softmax(Q~ Kᵀ / sqrt(D)), Q~ and K~ segment means",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.ADAPTED,
        },
        absent={
            Pattern.CAUSAL_SELF: "a landmark is the mean of a segment of the whole sequence, so "
            "every output depends on later tokens",
            Pattern.CAUSAL_CROSS: "the landmarks of the queries are means over all of them, so "
            "every output depends on later queries",
        },
        time="L m D",
        memory="L m",
        paper="Xiong et al., Nyströmformer: A Nyström-Based Algorithm for Approximating "
        "Self-Attention",
        year=2021,
        url="https://arxiv.org/abs/2102.03902",
        options=(
            Option("landmarks", 16, "m: segments of the queries and of the keys", positive=True),
            Option("iterations", 6, "steps of the pseudo-inverse", least=0),
            Option(
                "conv",
                0,
                "kernel size, odd, of a depthwise convolution of the values over time, one kernel "
                "a head, added to the output in self attention; 0: none",
                least=0,
            ),
        ),
        presets={"cab": {"landmarks": 16, "iterations": 6, "conv": 0}},
    )
)
class NystromAttention(Attention):
    """Nyström approximation of softmax attention from segment means.

    Adapted to cross attention: queries and keys are cut into segments separately, by their own
    masks and lengths, so A is rectangular where one side has fewer tokens than m; the exact case is
    that of landmarks of single keys; and there is no convolution, as queries have no place among
    the values.
    """

    def __init__(
        self, spec: AttentionSpec, landmarks: int = 16, iterations: int = 6, conv: int = 0
    ) -> None:
        super().__init__(spec)
        if landmarks < 1:
            raise ValueError(f"landmarks must be at least 1, not {landmarks}")
        if conv and conv % 2 == 0:
            raise ValueError(f"conv must be odd to be centred on a token, not {conv}")
        self.landmarks = landmarks
        self.iterations = iterations
        self.kernel: nn.Parameter | None = None
        if conv and spec.pattern is Pattern.NONCAUSAL_SELF:
            self.kernel = nn.Parameter(torch.empty(spec.heads, 1, conv, 1))
            nn.init.uniform_(self.kernel, -(conv**-0.5), conv**-0.5)

    @at_positions
    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least.

        A⁺ magnifies rounding errors of F and G, so no part of the product is left in less.
        """
        query_mask, key_mask = self._masks(context)
        dtype = torch.promote_types(v.dtype, torch.float32)
        wide = [x.to(dtype).contiguous() for x in (q, k, v)]
        out = self._approximate(wide[0], wide[1], wide[2], query_mask, key_mask)
        if self.kernel is not None:
            out = out + self._local(wide[2])
        return out.to(v.dtype)

    @at_positions
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """The three softmax matrices written out; exact softmax where landmarks are single keys."""
        query_mask, key_mask = (
            x.new_ones(x.shape[0], x.shape[-2], dtype=torch.bool) if mask is None else mask
            for x, mask in zip((q, k), self._masks(context), strict=True)
        )
        average_q, sizes_q = segment_averaging(query_mask, self.landmarks, q.dtype)
        average_k, sizes_k = segment_averaging(key_mask, self.landmarks, k.dtype)
        landmarks_q, landmarks_k = average_q @ q, average_k @ k
        some_q, some_k = sizes_q[..., :, None] > 0, sizes_k[..., None, :] > 0
        keys = key_mask[:, None, None, :]
        to_landmarks = exact_softmax(q, landmarks_k, some_k)
        core = exact_softmax(landmarks_q, landmarks_k, some_q & some_k)
        to_keys = exact_softmax(landmarks_q, k, some_q & keys)
        out = to_landmarks @ iterative_pinv(core, self.iterations) @ to_keys @ v
        single = sizes_k.amax(-1)[..., None, None] <= 1
        out = torch.where(single, exact_softmax_attention(q, k, v, keys), out)
        return out if self.kernel is None else out + self._local(v)

    def flops(self, shape: AttentionShape) -> float:
        """2 B H (Lq + Lk) m (D + Dv), the landmarks, and the pseudo-inverse."""
        rows, m = shape.batch * shape.heads, self.landmarks
        length_q, length_k, width = shape.length_q, shape.length_k, shape.head_dim + shape.value_dim
        conv = 0 if self.kernel is None else 2 * length_k * self.kernel.numel() // self.spec.heads
        local = conv * shape.value_dim
        if length_k <= m:
            return rows * (2 * length_q * length_k * width + local)
        means = (length_q + length_k) * shape.head_dim
        core = 2 * m * m * width + 8 * self.iterations * m**3
        return rows * (2 * (length_q + length_k) * m * width + means + core + local)

    def _masks(self, context: AttentionContext | None) -> tuple[Tensor | None, Tensor | None]:
        """Masks of the queries and of the keys; one and the same in self attention."""
        if context is None:
            return None, None
        own = context.query_mask if self.pattern.cross else context.key_mask
        return own, context.key_mask

    def _approximate(
        self, q: Tensor, k: Tensor, v: Tensor, query_mask: Tensor | None, key_mask: Tensor | None
    ) -> Tensor:
        keys = None if key_mask is None else key_mask[:, None, None, :]
        if k.shape[-2] <= self.landmarks:
            return exact_softmax_attention(q, k, v, keys)
        segments_q = Segments(q.shape[-2], self.landmarks, query_mask, q.dtype)
        segments_k = Segments(k.shape[-2], self.landmarks, key_mask, k.dtype)
        to_landmarks, to_keys, landmarks_q, landmarks_k = _LandmarkScores.apply(  # type: ignore[no-untyped-call]  # apply is not annotated in torch
            q, k, segments_q, segments_k, keys
        )
        core = exact_softmax(landmarks_q, landmarks_k, _pairs(segments_q, segments_k))
        means, _ = softmax_means(to_keys, v)
        slots = iterative_pinv(core, self.iterations) @ means
        if segments_k.may_be_single():
            # Every landmark of such a row is one of its keys: softmax over the landmarks of their
            # own values is exact.
            slots = torch.where(segments_k.single[..., None], segments_k.means(v), slots)
        return to_landmarks.softmax(-1) @ slots

    def _local(self, v: Tensor) -> Tensor:
        """Depthwise convolution of the values over time; masked ones are zeros in their places."""
        assert self.kernel is not None
        # What a kernel longer than the sequence reaches on either side is not there.
        beyond = max(0, self.kernel.shape[-2] // 2 - (v.shape[-2] - 1))
        kernel = self.kernel.to(v.dtype)[..., beyond : self.kernel.shape[-2] - beyond, :]
        padding = (kernel.shape[-2] // 2, 0)
        return F.conv2d(v, kernel, padding=padding, groups=v.shape[1])


def _pairs(segments_q: Segments, segments_k: Segments) -> Tensor | None:
    """(B, 1, m, m) bool, True where both segments have tokens; None where all have."""
    pairs = None
    if segments_q.filled is not None:
        pairs = segments_q.filled[..., :, None]
    if segments_k.filled is not None:
        filled = segments_k.filled[..., None, :]
        pairs = filled if pairs is None else pairs & filled
    return pairs


class _LandmarkScores(torch.autograd.Function):
    """Scores (B, H, Lq, m) of the landmarks of k and (B, H, m, Lk) of those of q; the landmarks.

    Scores of masked keys and of empty segments are -inf. One node does the means and both
    products, so that gradients through the means are added to those through the scores in place.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        segments_q: Segments,
        segments_k: Segments,
        keys: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        scale = q.shape[-1] ** -0.5
        landmarks_q, landmarks_k = segments_q.means(q), segments_k.means(k)
        scaled_q, scaled_k = landmarks_q * scale, landmarks_k * scale
        ctx.segments = segments_q, segments_k
        ctx.save_for_backward(q, k, scaled_q, scaled_k)
        to_landmarks = segments_k.hide_empty_(q @ scaled_k.mT)
        to_keys = scaled_q @ k.mT
        if keys is not None:
            to_keys.masked_fill_(~keys, float("-inf"))
        return to_landmarks, to_keys, landmarks_q, landmarks_k

    @staticmethod
    @first_derivatives_only
    @without_autocast
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, scaled_q, scaled_k = ctx.saved_tensors
        segments_q, segments_k = ctx.segments
        # Those of the scores are zero where these are -inf, as all of them go through a softmax.
        to_landmarks, to_keys, landmarks_q, landmarks_k = gradients
        scale = q.shape[-1] ** -0.5
        landmarks_q = torch.add(landmarks_q, to_keys @ k, alpha=scale)
        landmarks_k = torch.add(landmarks_k, to_landmarks.mT @ q, alpha=scale)
        grad_q = segments_q.add_gradient_(to_landmarks @ scaled_k, landmarks_q)
        grad_k = segments_k.add_gradient_(to_keys.mT @ scaled_q, landmarks_k)
        return grad_q, grad_k, None, None, None
