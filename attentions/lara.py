"""LARA: linear randomized attention (Zheng, Wang, Kong 2022, arXiv 2204.04667; in CAB).

Softmax attention is an expectation over random features w of a density that depends on the query.
LARA draws one sample from each of m proposals N(mu_c, I), shared by all queries, and weighs them by
self-normalised importance sampling (section 4). With l(x, w) = (w·x - |x|^2 / 2) / sqrt(D),

    mu_c = q~_c + k~_c,   w_c = mu_c + noise,   q~_c, k~_c: means of the c-th of m segments
    V_c = sum_j softmax_j(l(k_j, w_c)) v_j,     M_c = logsumexp_j l(k_j, w_c)
    r_ic = log a_ic + l(q_i, w_c) + M_c - l(mu_c, w_c),     o_i = sum_c softmax_c(r_i)_c V_c

over the valid tokens. There is noise in training only. -|q_i|^2 / 2 is the same for all c and
drops out, so r_i is an affine map of q_i into m numbers, and both sums are softmax means.

The weighting a_ic of the proposals is an option:

* ``query``, CAB's: a_ic = exp(mu_c·q_i / sqrt(D)), a proposal that suits the query counts more;
* ``optimal``, the default of the authors' repository: the balance heuristic, corrected towards the
  proposals whose queries resemble this one,
  a_ic = max(1e-8, b_c + t_ic - mean_c t_ic), b_c = exp(l(mu_c, w_c)) / sum_d exp(l(mu_d, w_c)),
  t_i = softmax_c(q~_c·q_i / sqrt(D)).

Segments are of positions, masked tokens counted (`attentions.shared.segments`).

What differs from CAB's code: masked keys are absent from M_c as well (there they count), and masked
tokens from the segment means (there they are averaged in). What differs from the paper: in units
where l has no 1 / sqrt(D), the noise of the proposals has variance D^-1/2 instead of 1 - as it has
in both public codes - and the landmarks are plain segment means, as in CAB, without the linear map
and layer norm that the authors' repository puts behind them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attentions.shared.autocast import without_autocast
from attentions.shared.averaging import segment_averaging
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

_SMALLEST_WEIGHT = 1e-8
"""Of a proposal under the ``optimal`` weighting, whose correction can be negative."""


def log_kernel(x: Tensor, w: Tensor) -> Tensor:
    """(..., C, L): l(x, w) of every feature (..., C, D) and token (..., L, D)."""
    return (w @ x.mT - 0.5 * x.square().sum(-1)[..., None, :]) * x.shape[-1] ** -0.5


@register_attention(
    AttentionInfo(
        id="lara",
        family=Family.LINEAR,
        title="LARA (linear randomized attention)",
        formula="o_i = sum_c softmax_c(log a_ic + l(q_i,w_c) + logsumexp_j l(k_j,w_c) - "
        "l(mu_c,w_c)) sum_j softmax_j(l(k_j,w_c)) v_j, l(x,w) = (w·x - |x|^2/2) / sqrt(D)",
        patterns={Pattern.NONCAUSAL_SELF: Grade.FAITHFUL},
        absent={
            Pattern.CAUSAL_SELF: "the proposals are centred on segment means of the whole "
            "sequence, so every output depends on later tokens",
            Pattern.NONCAUSAL_CROSS: "the c-th segment of the queries and the c-th of "
            "the keys make one proposal, which takes segments of the same tokens",
            Pattern.CAUSAL_CROSS: "the c-th segment of the queries and the c-th of "
            "the keys make one proposal, which takes segments of the same tokens",
        },
        time="L m D",
        memory="L m",
        paper="Zheng et al., Linear Complexity Randomized Self-attention Mechanism",
        year=2022,
        url="https://arxiv.org/abs/2204.04667",
        options=(
            Option("landmarks", 16, "m: segments, and proposals", positive=True),
            Option(
                "weighting",
                "query",
                "of the proposals: by their likeness to the query, or the authors' optimal one",
                choices=("query", "optimal"),
            ),
            Option("antithetic", False, "in training, add and subtract the noise: 2 m samples"),
        ),
        presets={"cab": {"landmarks": 16, "weighting": "query", "antithetic": False}},
    )
)
class LinearRandomizedAttention(Attention):
    """Self-normalised importance sampling of the random features of softmax attention.

    In training the noise comes from torch's global generator of the device.
    """

    def __init__(
        self,
        spec: AttentionSpec,
        landmarks: int = 16,
        weighting: str = "query",
        antithetic: bool = False,
    ) -> None:
        super().__init__(spec)
        if landmarks < 1:
            raise ValueError(f"landmarks must be at least 1, not {landmarks}")
        self.landmarks = landmarks
        self.weighting = weighting
        self.antithetic = antithetic

    @at_positions
    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least."""
        mask = None if context is None else context.key_mask
        dtype = torch.promote_types(v.dtype, torch.float32)
        wide = [x.to(dtype).contiguous() for x in (q, k, v)]
        segments = Segments(q.shape[-2], self.landmarks, mask, dtype)
        noise = self._noise(wide[0], segments.count)
        scores_q, scores_k, landmarks_q, landmarks_k = _Scores.apply(  # type: ignore[no-untyped-call]  # apply is not annotated in torch
            wide[0], wide[1], noise, segments, mask, self.weighting == "query"
        )
        values, mass = softmax_means(scores_k, wide[2])
        w, mu = _samples(landmarks_q, landmarks_k, noise)
        bias = mass - _at_own(mu, w)
        filled = None
        if segments.filled is not None:
            filled = segments.filled.repeat(1, 1, w.shape[-2] // segments.count)
            # The mass is -inf in a row without tokens, whose values are zeros.
            bias = bias.masked_fill(~filled, -torch.inf).masked_fill(segments.empty, 0.0)
        scores_q = scores_q + bias[..., None, :]
        if self.weighting == "optimal":
            likeness = segments.hide_empty_(wide[0] @ (landmarks_q * q.shape[-1] ** -0.5).mT)
            scores_q = scores_q + _optimal_log_weights(likeness, mu, w, filled)
        return (scores_q.softmax(-1) @ values).to(v.dtype)

    @at_positions
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """The formula with every term of the log weights r written out."""
        mask = None if context is None else context.key_mask
        if mask is None:
            mask = q.new_ones(q.shape[0], q.shape[-2], dtype=torch.bool)
        average, sizes = segment_averaging(mask, self.landmarks, q.dtype)
        landmarks_q, landmarks_k = average @ q, average @ k
        noise = self._noise(q, average.shape[-2])
        w, mu = _samples(landmarks_q, landmarks_k, noise)
        filled = (sizes > 0).repeat(1, 1, w.shape[-2] // average.shape[-2])
        keys = log_kernel(k, w).masked_fill(~mask[:, None, None, :], -torch.inf)
        proposals = log_kernel(mu, w).diagonal(dim1=-2, dim2=-1)
        if self.weighting == "query":
            log_weights = q @ mu.mT * q.shape[-1] ** -0.5
        else:
            likeness = q @ landmarks_q.mT * q.shape[-1] ** -0.5
            likeness = likeness.masked_fill(~(sizes > 0)[..., None, :], -torch.inf)
            log_weights = _optimal_log_weights(likeness, mu, w, filled)
        r = log_weights.mT + log_kernel(q, w) + (keys.logsumexp(-1) - proposals)[..., None]
        of_samples = r.masked_fill(~filled[..., None], -torch.inf).softmax(-2)
        weights = of_samples.mT @ keys.softmax(-1)
        return weights.masked_fill(~mask[:, None, None, :], 0.0) @ v

    def flops(self, shape: AttentionShape) -> float:
        """4 B H L m (D + Dv) and the landmarks and norms."""
        rows, length, width = shape.batch * shape.heads, shape.length_k, shape.head_dim
        m = min(self.landmarks, length)
        extra = 2 * m * width if self.weighting == "optimal" else 0
        return rows * length * (4 * m * (width + shape.value_dim) + 4 * width + extra)

    def _noise(self, q: Tensor, count: int) -> Tensor | None:
        """(B, H, C, D) in training: C samples, the segments once or, antithetic, twice over."""
        if not self.training:
            return None
        noise = torch.randn(*q.shape[:2], count, q.shape[-1], dtype=q.dtype, device=q.device)
        return torch.cat([noise, -noise], dim=-2) if self.antithetic else noise


def _samples(
    landmarks_q: Tensor, landmarks_k: Tensor, noise: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Samples w and the means mu of their proposals, (B, H, C, D) both."""
    mu = landmarks_q + landmarks_k
    if noise is None:
        return mu, mu
    mu = mu.repeat(1, 1, noise.shape[-2] // mu.shape[-2], 1)
    return mu + noise, mu


def _at_own(mu: Tensor, w: Tensor) -> Tensor:
    """(..., C): l(mu_c, w_c), the log density of a sample under its own proposal, but for terms
    that all proposals share.
    """
    return (mu * (w - 0.5 * mu)).sum(-1) * mu.shape[-1] ** -0.5


def _optimal_log_weights(likeness: Tensor, mu: Tensor, w: Tensor, filled: Tensor | None) -> Tensor:
    """(B, H, L, C) log a_ic from q~_c·q_i / sqrt(D), (B, H, L, r), -inf at empty segments."""
    copies = w.shape[-2] // likeness.shape[-1]
    densities = log_kernel(mu, w)
    count: Tensor | int = likeness.shape[-1]
    if filled is not None:
        some = filled | ~filled.any(-1, keepdim=True)
        densities = densities.masked_fill(~some[..., None, :], -torch.inf)
        count = (some.sum(-1)[..., None, None] // copies).to(w.dtype)
    ratio = _at_own(mu, w) - densities.logsumexp(-1)
    if filled is not None:
        # An empty segment's sample may be so far from all proposals that the ratio overflows.
        ratio = ratio.masked_fill(~some, -torch.inf)
    balance = ratio.exp()
    # The mean of t over the proposals is one in their number, as t sums to one.
    t = likeness.softmax(-1).repeat(1, 1, 1, copies)
    return (balance[..., None, :] + t - 1.0 / count).clamp(min=_SMALLEST_WEIGHT).log()


class _Scores(torch.autograd.Function):
    """(B, H, L, C) of the queries, (B, H, C, L) of the keys, and the landmarks (B, H, r, D).

    Keys: l(k_j, w_c), -inf where masked. Queries: w_c·q_i / sqrt(D), to which ``pull`` adds
    mu_c·q_i / sqrt(D). One node does the means and both products, so that gradients through the
    means are added to those through the scores in place.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        noise: Tensor | None,
        segments: Segments,
        mask: Tensor | None,
        pull: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        scale = q.shape[-1] ** -0.5
        landmarks_q, landmarks_k = segments.means(q), segments.means(k)
        w, mu = _samples(landmarks_q, landmarks_k, noise)
        of_keys, of_queries = w * scale, (w + mu if pull else w) * scale
        norms = torch.linalg.vector_norm(k, dim=-1).square_()
        scores_k = torch.baddbmm(
            norms.flatten(0, 1)[:, None, :],
            of_keys.flatten(0, 1),
            k.flatten(0, 1).mT,
            beta=-0.5 * scale,
        ).unflatten(0, k.shape[:2])
        if mask is not None:
            scores_k.masked_fill_(~mask[:, None, None, :], -torch.inf)
        ctx.save_for_backward(q, k, of_queries, of_keys)
        ctx.segments, ctx.pull = segments, pull
        return q @ of_queries.mT, scores_k, landmarks_q, landmarks_k

    @staticmethod
    @first_derivatives_only
    @without_autocast
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, of_queries, of_keys = ctx.saved_tensors
        scores_q, scores_k, landmarks_q, landmarks_k = gradients
        scale = q.shape[-1] ** -0.5
        grad_mu = torch.add(scores_k @ k, scores_q.mT @ q, alpha=2.0 if ctx.pull else 1.0)
        grad_mu = grad_mu.unflatten(-2, (-1, ctx.segments.count)).sum(-3)
        landmarks_q = torch.add(landmarks_q, grad_mu, alpha=scale)
        landmarks_k = torch.add(landmarks_k, grad_mu, alpha=scale)
        grad_q = ctx.segments.add_gradient_(scores_q @ of_queries, landmarks_q)
        grad_k = ctx.segments.add_gradient_(scores_k.mT @ of_keys, landmarks_k)
        grad_k.addcmul_(k, scores_k.sum(-2)[..., None], value=-scale)
        return grad_q, grad_k, None, None, None, None
