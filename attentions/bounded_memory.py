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

from attentions.autocast import without_autocast
from attentions.bounded_memory_scan import CHUNK, causal_slot_attention
from attentions.masks import visible
from cab import (
    Attention,
    AttentionContext,
    AttentionInfo,
    AttentionShape,
    AttentionSpec,
    DecodeState,
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
        (q, k, v), controls = self._prepare(q, k, v, mask)
        if self.pattern is Pattern.CAUSAL_SELF:
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
        keys, values = (_slot_means(x, c, mask) for x, c in zip((k, v), controls, strict=True))
        return ((q @ (keys * self.scale).mT).softmax(-1) @ values).to(dtype)

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
        (k, _, v), controls = self._prepare(k, k, v, mask)
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
            (q_t, k_t, v_t), controls = self._prepare(q_t, k_t, v_t, None)
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
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None
    ) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Queries, keys, values and both control matrices (B, H, D, r) in float32 at least; masked
        keys and values are zero.
        """
        dtype = torch.promote_types(v.dtype, torch.float32)
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
        if mask is not None:
            k, v = (x.masked_fill(~mask[:, None, :, None], 0.0) for x in (k, v))
        controls = (self.control_k, self.control_v)
        control_k, control_v = (c.to(dtype).expand(*v.shape[:2], -1, -1) for c in controls)
        return (q, k, v), (control_k, control_v)


def _slot_means(x: Tensor, control: Tensor, mask: Tensor | None) -> Tensor:
    """(B, H, r, D) = softmax_j(x control)^T x over the tokens that are not masked."""
    means: Tensor = _SlotMeans.apply(x, control, mask)  # type: ignore[no-untyped-call]  # apply is not annotated in torch
    return means


class _SlotMeans(torch.autograd.Function):
    """Keeps the weights for the backward pass, which adds the gradient through the logits to that
    through the means in place.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, control: Tensor, mask: Tensor | None) -> Tensor:
        logits = x @ control
        if mask is None:
            weights = logits.softmax(-2)
        else:
            hidden = ~mask[:, None, :, None]
            weights = logits.masked_fill_(hidden, -math.inf).softmax(-2)
            weights.masked_fill_(hidden, 0.0)
        means = weights.mT @ x
        ctx.save_for_backward(x, control, weights, means)
        return means

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, control, weights, means = ctx.saved_tensors
        g = gradients[0]
        # d mean_r / d a_jr = p_jr (x_j - mean_r)
        own = (g * means).sum(-1)[..., None, :]
        grad_logits = (x @ g.mT).sub_(own).mul_(weights)
        grad_x = weights @ g
        grad_x.flatten(0, 1).baddbmm_(grad_logits.flatten(0, 1), control.mT.flatten(0, 1))
        return grad_x, x.mT @ grad_logits, None
