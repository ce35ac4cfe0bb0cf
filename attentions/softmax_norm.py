"""Softmax attention with a norm or a gate in the place of its denominator (Mongaras and Larson
2025, arXiv 2507.23632).

    N_i = sum_j exp(s_ij) v_j,   s_ij = q_i·k_j / sqrt(D)

over the S_i keys j that row i sees. Read as a recurrent network, the softmax denominator is a gate
on the state; the paper asks what else may stand there:

    l2            N_i / |N_i|
    rms           RMSNorm(N_i), a weight for every value channel, the same in all heads
    layernorm     LayerNorm(N_i), likewise
    div-s         N_i / S_i                  with s_ij no more than 5
    gate-div-s    sigmoid(w·x_i + b) N_i / S_i, a gate for every head and query from the layer's
                  input                      with s_ij no more than 5
    clamp-denom   N_i / max(sum_j exp(s_ij), 1)

The first three do not change when a row of N is scaled, so N_i may be divided by any number first:
they are the norm of what softmax attention gives, and are computed so, with fused kernels in O(L)
memory. The others write out all scores; the clamp of ``div-s`` has a kink, and gradients of its
weights, which are up to exp(5), can be beyond float16.

The norms' eps (1e-6 and 1e-5) is added to what softmax gives, and none to the l2 norm: a row of
zeros, which has no direction, stays zero. The authors' code has more variants, among them one with
the denominator left out of the gradient and ones that gate the values; they are not here. Their
paper's full text was not read: which variant is its main one is taken from their code.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.shared.masks import sees_a_key, visible
from attentions.softmax import SoftmaxAttention
from cab import (
    AttentionContext,
    AttentionInfo,
    AttentionSpec,
    Family,
    Grade,
    Option,
    Pattern,
    register_attention,
)

_LARGEST_SCORE = 5.0
"""Where nothing divides by the sum of exponentials, as its authors train it."""
_EPS = {"rms": 1e-6, "layernorm": 1e-5}
_WRITTEN_OUT = ("div-s", "gate-div-s", "clamp-denom")


@register_attention(
    AttentionInfo(
        id="softmax-norm",
        family=Family.SOFTMAX,
        title="Softmax numerator with a norm",
        formula="o_i = norm(sum_j exp(q_i·k_j / sqrt(D)) v_j)",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.EXTENSION,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L^2 D",
        memory="L",
        paper="Mongaras and Larson, On the Expressiveness of Softmax Attention: "
        "A Recurrent Neural Network Perspective",
        year=2025,
        url="https://arxiv.org/abs/2507.23632",
        options=(
            Option(
                "norm",
                "l2",
                "what stands in the place of the denominator",
                choices=("l2", "rms", "layernorm", *_WRITTEN_OUT),
            ),
        ),
    )
)
class SoftmaxNorm(SoftmaxAttention):
    """The numerator of softmax attention under a norm or a gate.

    ``gate-div-s`` needs the layer input in its context.
    """

    def __init__(self, spec: AttentionSpec, norm: str = "l2") -> None:
        super().__init__(spec)
        self.norm = norm
        if norm in ("rms", "layernorm"):
            self.weight = nn.Parameter(torch.ones(spec.value_dim))
        if norm == "layernorm":
            self.bias = nn.Parameter(torch.zeros(spec.value_dim))
        if norm == "gate-div-s":
            self.gate = nn.Linear(spec.embed_dim or spec.heads * spec.head_dim, spec.heads)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; norms are taken in float32 at least.

        Raises:
            ValueError: the context has no ``query_input``, and the norm is ``gate-div-s``.
        """
        if self.norm in _WRITTEN_OUT:
            return self._written_out(q, k, v, context)
        out = self._normed(self.fused(q, k, v, context, q.shape[-1] ** -0.5))
        sees = sees_a_key(self.pattern, q.shape[-2], context)
        return (out if sees is None else out.masked_fill(~sees, 0.0)).to(v.dtype)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """The numerator written out, a row divided by the exponential of its largest score."""
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        scores = q @ k.mT / q.shape[-1] ** 0.5
        if self.norm in ("div-s", "gate-div-s"):
            scores = scores.clamp(max=_LARGEST_SCORE)
        seen = torch.ones_like(scores, dtype=torch.bool)
        seen = seen if mask is None else seen & mask
        count = seen.sum(-1, keepdim=True)
        top = scores.detach().masked_fill(~seen, -torch.inf).amax(-1, keepdim=True)
        top = top.masked_fill(count == 0, 0.0)
        weights = (scores - top).exp().masked_fill(~seen, 0.0)
        numerator, total = weights @ v, weights.sum(-1, keepdim=True)
        if self.norm == "l2":
            return self._normed(numerator)
        if self.norm == "clamp-denom":
            return numerator / torch.maximum(total, (-top).exp())
        if self.norm in ("div-s", "gate-div-s"):
            out = numerator * top.exp() / count.clamp(min=1)
            return out if self.norm == "div-s" else self._gates(context).to(out.dtype) * out
        out = numerator / total.masked_fill(count == 0, 1.0)
        return self._normed(out).masked_fill(count == 0, 0.0)

    def _normed(self, out: Tensor) -> Tensor:
        """Rows of what softmax attention gives, (B, H, L, Dv), in float32 at least."""
        out = out.to(torch.promote_types(out.dtype, torch.float32))
        if self.norm == "l2":
            apply: Any = _UnitVectors.apply
            return cast("Tensor", apply(out))
        width, weight = out.shape[-1:], self.weight.to(out.dtype)
        if self.norm == "rms":
            return F.rms_norm(out, width, weight, _EPS["rms"])
        return F.layer_norm(out, width, weight, self.bias.to(out.dtype), _EPS["layernorm"])

    def _written_out(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None
    ) -> Tensor:
        """The forms that need all scores, in float32 at least."""
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        scores = (q @ k.mT * q.shape[-1] ** -0.5).to(torch.promote_types(q.dtype, torch.float32))
        if self.norm == "clamp-denom":
            if mask is not None:
                scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
            share = scores.logsumexp(-1, keepdim=True).clamp(max=0.0).exp()
            # A row that sees no key is a mean of all values, whose share is zero.
            return (scores.softmax(-1) @ v.to(scores.dtype) * share).to(v.dtype)
        weights = scores.clamp(max=_LARGEST_SCORE).exp()
        count: Tensor | int = k.shape[-2]
        if mask is not None:
            weights = weights.masked_fill(~mask, 0.0)
            count = mask.sum(-1, keepdim=True).clamp(min=1)
        out = weights @ v.to(weights.dtype) / count
        if self.norm == "gate-div-s":
            out = self._gates(context).to(out.dtype) * out
        return out.to(v.dtype)

    def _gates(self, context: AttentionContext | None) -> Tensor:
        """(B, H, Lq, 1) between 0 and 1."""
        if context is None or context.query_input is None:
            raise ValueError(
                "softmax-norm with norm=gate-div-s gates by the layer's input: call it with "
                "context=AttentionContext(query_input=x), x of shape (B, Lq, E)"
            )
        x = context.query_input.to(self.gate.weight.dtype)
        return self.gate(x).sigmoid().transpose(1, 2).unsqueeze(-1)


class _UnitVectors(torch.autograd.Function):
    """x / |x| over the last dimension, zero where x is.

    The gradient is projected before it is divided: what lies along x cancels exactly. Autograd
    would leave rounding there, divided by a length that may be small, which with one channel is
    all there is.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x / _length(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        # From the input, so that autograd can differentiate this again.
        (x,) = ctx.saved_tensors
        length = _length(x)
        unit = x / length
        return (grad - unit * (unit * grad).sum(-1, keepdim=True)) / length


def _length(x: Tensor) -> Tensor:
    length = x.norm(dim=-1, keepdim=True)
    return length.masked_fill(length == 0, 1.0)
