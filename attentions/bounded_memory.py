"""ABC: attention with bounded-memory control (Peng et al. 2022, arXiv 2110.02488).

Keys and values are written to r slots, and queries attend to the slots instead of the tokens:

    K = softmax_j(k W_k)^T k   (r, D),   V = softmax_j(v W_v)^T v   (r, Dv)
    o_i = softmax_r(q_i·K_r / sqrt(D)) V

with one softmax over the tokens j for each slot. Causally every slot is the mean over the prefix, a
recurrence with C_t the running logsumexp of the control logits a_j = k_j W_k:

    K_t = e^{C_(t-1) - C_t} K_(t-1) + e^{a_t - C_t} k_t^T,   V_t likewise with a_j = v_j W_v

The paper's learned instance projects one control per token from the layer's input and writes keys
and values with it. As in CAB's library, the controls here are projected from the keys and from the
values, with a matrix for each: what a mechanism can do that sees q, k and v. Unlike CAB's, a causal
slot holds its prefix: CAB's causal code leaves out the sum over the prefix, so that its output is
a multiple of the token's own value and no tokens are mixed.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.bounded_memory_scan import CHUNK, causal_slot_attention
from attentions.shared.first_order import first_derivatives_only
from attentions.shared.heads import empty_heads, multiply_heads
from attentions.shared.masks import visible
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

_CONTROL_GAIN = 2**-0.5
"""Of the Xavier-uniform control matrices, as CAB draws them."""


@register_attention(
    AttentionInfo(
        id="abc",
        family=Family.LOW_RANK,
        title="ABC (attention with bounded-memory control)",
        formula="o_i = softmax_r(q_i·K_r / sqrt(D)) V, K = softmax_j(k W_k)^T k, V likewise",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.FAITHFUL,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.FAITHFUL,
            Pattern.CAUSAL_CROSS: Grade.FAITHFUL,
        },
        time="L r D",
        memory="L r",
        paper="Peng et al., ABC: Attention with Bounded-Memory Control",
        year=2022,
        url="https://arxiv.org/abs/2110.02488",
        options=(
            Option("slots", 16, "r: slots of each memory", positive=True),
            Option("per_head", False, "control matrices of its own for each head"),
        ),
        presets={"cab": {"slots": 16, "per_head": False}},
    )
)
class BoundedMemoryAttention(Attention):
    """Attention to r slots that the tokens are written to.

    The heads share the control matrices by default, as in CAB: each head's own key and value
    projections already choose what of the layer's input the shared matrices see.
    """

    def __init__(self, spec: AttentionSpec, slots: int = 16, per_head: bool = False) -> None:
        super().__init__(spec)
        heads = spec.heads if per_head else 1
        self.control_k = nn.Parameter(torch.empty(heads, spec.head_dim, slots))
        self.control_v = nn.Parameter(torch.empty(heads, spec.value_dim, slots))
        for matrix in (*self.control_k, *self.control_v):
            nn.init.xavier_uniform_(matrix, gain=_CONTROL_GAIN)
        self.slots = slots
        self.scale = spec.head_dim**-0.5

    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least."""
        dtype, mask = v.dtype, None if context is None else context.key_mask
        if self.pattern is not Pattern.CAUSAL_SELF:
            out: Tensor = _SlotAttention.apply(  # type: ignore[no-untyped-call]  # apply is not annotated in torch
                *(x.to(_work_dtype(v)) for x in (q, k, v, self.control_k, self.control_v)),
                mask,
                self.scale,
            )
            return out.to(dtype)
        (q, k, v), controls = self._prepare(q, k, v)
        lag = k.shape[-2] - q.shape[-2]
        if lag:
            # Queries of the tokens before the first are stood in by zeros and dropped.
            q = F.pad(q, (0, 0, lag, 0))
        rows = None if mask is None else mask.repeat_interleave(v.shape[1], dim=0)
        out = causal_slot_attention(
            q.flatten(0, 1),
            k.flatten(0, 1),
            v.flatten(0, 1),
            controls[0].flatten(0, 1),
            controls[1].flatten(0, 1),
            rows,
            self.scale,
        )
        return out.unflatten(0, v.shape[:2])[..., lag:, :].to(dtype)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Each query's slots, with all the weights of their means: (B, H, Lq or 1, r, Lk)."""
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)

        def slots(x: Tensor, control: Tensor) -> Tensor:
            logits = (x @ control).mT[:, :, None]
            if mask is None:
                return logits.softmax(-1) @ x[:, :, None]
            hidden = ~mask[..., None, :]
            weights = logits.masked_fill(hidden, -math.inf).softmax(-1)
            return weights.masked_fill(hidden, 0.0) @ x[:, :, None]

        scores = q[..., None, :] @ slots(k, self.control_k).mT * self.scale
        return (scores.softmax(-1) @ slots(v, self.control_v))[..., 0, :]

    @without_autocast
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """The slots and the logsumexp of their control logits over the prompt or source."""
        mask = None if context is None else context.key_mask
        (k, _, v), controls = self._prepare(k, k, v)
        tensors = {}
        for name, x, control in zip("kv", (k, v), controls, strict=True):
            logits = x @ control
            if mask is not None:
                logits = logits.masked_fill(~mask[:, None, :, None], -math.inf)
            mass = logits.logsumexp(-2)
            finite = mass.masked_fill(mass == -math.inf, 0.0)
            tensors[name] = (logits - finite[..., None, :]).exp().mT @ x
            tensors[f"mass_{name}"] = mass
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
        """Write the token to the slots, if it has a key and value, and read them."""
        tensors, dtype = state.tensors, q_t.dtype
        if k_t is not None and v_t is not None:
            (q_t, k_t, v_t), controls = self._prepare(q_t, k_t, v_t)
            for name, x, control in zip("kv", (k_t, v_t), controls, strict=True):
                logits = (x @ control)[..., 0, :]
                mass = torch.logaddexp(tensors[f"mass_{name}"], logits)
                kept = (tensors[f"mass_{name}"] - mass).exp()[..., None]
                tensors[name] = kept * tensors[name] + (logits - mass).exp()[..., None] * x
                tensors[f"mass_{name}"] = mass
            state.length += k_t.shape[-2]
        scores = q_t.to(tensors["k"].dtype) @ tensors["k"].mT * self.scale
        return (scores.softmax(-1) @ tensors["v"]).to(dtype), state

    def state_size(self, length: int) -> int:
        """H r (D + Dv + 2) numbers, whatever the length."""
        return self.spec.heads * self.slots * (self.spec.head_dim + self.spec.value_dim + 2)

    def flops(self, shape: AttentionShape) -> float:
        """Controls, means and reading, 2 B H r (D + Dv) each; causally the products in a chunk."""
        width, rows = shape.head_dim + shape.value_dim, shape.batch * shape.heads
        linear = 2 * rows * self.slots * width * (2 * shape.length_k + shape.length_q)
        if self.pattern is not Pattern.CAUSAL_SELF:
            return linear
        return linear + 2 * rows * shape.length_q * CHUNK * (width + 2 * self.slots)

    def _prepare(
        self, q: Tensor, k: Tensor, v: Tensor
    ) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Queries, keys, values and both control matrices (B, H, D, r) in float32 at least."""
        dtype = _work_dtype(v)
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
        controls = (self.control_k, self.control_v)
        control_k, control_v = (c.to(dtype).expand(*v.shape[:2], -1, -1) for c in controls)
        return (q, k, v), (control_k, control_v)


def _work_dtype(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


class _SlotAttention(torch.autograd.Function):
    """Noncausal: both memories are written, then every query reads them.

    Products take the heads as they come and give outputs and gradients in the same order: copies
    would be the larger part of the cost. Control matrices are (1 or H, D, r).
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        control_k: Tensor,
        control_v: Tensor,
        mask: Tensor | None,
        scale: float,
    ) -> Tensor:
        (written_k, keys), (written_v, values) = (
            _write(x, c, mask) for x, c in ((k, control_k), (v, control_v))
        )
        scores = q.new_empty(*q.shape[:3], keys.shape[2])
        p = multiply_heads(q, keys.mT, scores, scale).softmax(-1)
        ctx.save_for_backward(q, k, v, control_k, control_v, p, written_k, written_v, keys, values)
        ctx.scale = scale
        return multiply_heads(p, values, empty_heads(q, v.shape[-1]))

    @staticmethod
    @first_derivatives_only
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, control_k, control_v, p, written_k, written_v, keys, values = ctx.saved_tensors
        g = gradients[0]
        grad_values = multiply_heads(p.mT, g, torch.empty_like(values))
        grad_scores = multiply_heads(g, values.mT, torch.empty_like(p))
        own = (grad_scores * p).sum(-1, keepdim=True)
        grad_scores.sub_(own).mul_(p)
        grad_keys = multiply_heads(grad_scores.mT, q, torch.empty_like(keys), ctx.scale)
        grad_q = multiply_heads(grad_scores, keys, empty_heads(q, q.shape[-1]), ctx.scale)
        grad_k, grad_control_k = _write_backward(k, control_k, written_k, keys, grad_keys)
        grad_v, grad_control_v = _write_backward(v, control_v, written_v, values, grad_values)
        return grad_q, grad_k, grad_v, grad_control_k, grad_control_v, None, None


def _write(x: Tensor, control: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Weights (B, H, r, L) = softmax_j(x control)^T over the tokens that are not masked, and the
    means of x under them, (B, H, r, D).
    """
    batch, heads, length, width = x.shape
    slots = control.shape[-1]
    logits = x.new_empty(batch, heads, slots, length)
    multiply_heads(control.mT.expand(batch, heads, -1, -1), x.mT, logits)
    if mask is None:
        weights = logits.softmax(-1)
    else:
        hidden = ~mask[:, None, None, :]
        weights = logits.masked_fill_(hidden, -math.inf).softmax(-1)
        weights.masked_fill_(hidden, 0.0)
    return weights, multiply_heads(weights, x, x.new_empty(batch, heads, slots, width))


def _write_backward(
    x: Tensor, control: Tensor, weights: Tensor, means: Tensor, g: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of x and of the control matrices from that of the means."""
    batch, heads, slots, length = weights.shape
    # d mean_r / d a_jr = p_jr (x_j - mean_r)
    both = x.new_empty(batch, heads, 2 * slots, length)
    grad_logits = both[..., slots:, :]
    multiply_heads(g, x.mT, grad_logits)
    grad_logits.sub_((g * means).sum(-1, keepdim=True)).mul_(weights)
    grad_control = multiply_heads(grad_logits, x, torch.empty_like(g)).mT
    # What reaches x through the means and through the logits, as one product.
    both[..., :slots, :] = weights
    through = torch.cat((g, control.mT.expand(batch, heads, -1, -1)), dim=-2)
    grad_x = multiply_heads(both.mT, through, empty_heads(x, x.shape[-1]))
    return grad_x, grad_control.sum_to_size(1, *control.shape)[0]
