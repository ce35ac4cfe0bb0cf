"""No token mixing: a gated unit in the place of attention (Xue et al. 2025, arXiv 2510.11602, MLP).

    o_i = SiLU(q_i) * v_i

elementwise. With a backbone's projections of queries, values and outputs as its gate, up and down
matrices, that is the gated MLP that the paper replaces attention with, to show what mixing between
tokens is worth; keys are not read. `none` is a linear map of each token, and this a nonlinear one.

Where the values are not as wide as the queries, these are first mapped to their width by a learned
matrix of each head. The paper has it in all layers, or in odd ones alone (``hybrid``).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.shared.alternating import Alternating
from cab import (
    AttentionContext,
    AttentionInfo,
    AttentionShape,
    AttentionSpec,
    DecodeState,
    Family,
    Grade,
    Kind,
    Option,
    Pattern,
    register_attention,
)


@register_attention(
    AttentionInfo(
        id="decon-mlp",
        family=Family.CONTROL,
        title="Gated unit without token mixing",
        formula="o_i = SiLU(q_i) * v_i",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.FAITHFUL,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
        },
        absent={
            Pattern.NONCAUSAL_CROSS: "a query has no value of its own in another sequence",
            Pattern.CAUSAL_CROSS: "a query has no value of its own in another sequence",
        },
        time="L D",
        memory="L D",
        paper="Xue et al., Deconstructing Attention: Investigating Design Principles for Effective "
        "Language Modeling",
        year=2025,
        url="https://arxiv.org/abs/2510.11602",
        kind=Kind.MIXER,
        options=(Option("hybrid", False, "softmax attention in layers 0, 2, ..."),),
    )
)
class DeconMlp(Alternating):
    """A token's value, gated by its query."""

    def __init__(self, spec: AttentionSpec, hybrid: bool = False) -> None:
        super().__init__(spec, hybrid)
        self.width: nn.Parameter | None = None
        if self.plain is None and spec.value_dim != spec.head_dim:
            matrices = torch.empty(spec.heads, spec.head_dim, spec.value_dim)
            for matrix in matrices:
                nn.init.xavier_uniform_(matrix)
            self.width = nn.Parameter(matrices)

    def mixed(self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None) -> Tensor:
        """See `cab.Attention.forward`; masked values are zeros."""
        if self.width is not None:
            q = q.to(self.width.dtype) @ self.width
        return (F.silu(q) * v[..., v.shape[-2] - q.shape[-2] :, :]).to(v.dtype)

    def mixed_plainly(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None
    ) -> Tensor:
        """Logistic gates times what they gate."""
        if self.width is not None:
            q = torch.einsum("bhld,hde->bhle", q, self.width.to(q.dtype))
        return q / (1 + (-q).exp()) * v[..., v.shape[-2] - q.shape[-2] :, :]

    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """Nothing is kept."""
        if self.plain is not None:
            return self.plain.prefill(k, v, context)
        return DecodeState(k.shape[-2])

    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """The token's own value, gated."""
        if self.plain is not None:
            return self.plain.step(q_t, k_t, v_t, state, context)
        assert k_t is not None
        assert v_t is not None
        state.length += 1
        return self.mixed(q_t, k_t, v_t, None), state

    def state_size(self, length: int) -> int:
        """0"""
        return 0 if self.plain is None else self.plain.state_size(length)

    def mixing_flops(self, shape: AttentionShape) -> float:
        """Of the gates, and of the queries' map where there is one."""
        rows = shape.batch * shape.heads * shape.length_q
        mapped = 0 if self.width is None else 2 * rows * shape.head_dim * shape.value_dim
        return mapped + 5 * rows * shape.value_dim
