"""Gated softmax attention: a gate behind the weighted mean (Qiu et al. 2025, arXiv 2505.06708).

    o_i = sigmoid(W x_i) ∘ sum_j p_ij v_j,   p = softmax(q_i·k_j / sqrt(D))

over the keys j that row i sees; x_i is the layer's input at the query. The gate is one number for
every head (``headwise``) or one for every channel of a head (``elementwise``): of the places that
the authors compare, behind the mean is the best, with a gate of its own for every head. A gate near
zero lets a head say nothing, for which softmax alone must park its weight on a sink.

The elementwise gate, Qwen3-Next's, has as many weights as a projection of the layer; the headwise
one gives most of its gain with H times the layer's width, and is the default here, where
mechanisms may add a tenth of a backbone's parameters.
"""

from __future__ import annotations

from torch import Tensor, nn

from attentions.softmax import SoftmaxAttention
from cab import (
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


@register_attention(
    AttentionInfo(
        id="gated-softmax",
        family=Family.SOFTMAX,
        title="Gated softmax attention",
        formula="o_i = sigmoid(W x_i) ∘ softmax_j(q_i·k_j / sqrt(D)) v_j",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.EXTENSION,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L^2 D",
        memory="L",
        paper="Qiu et al., Gated Attention for Large Language Models: Non-linearity, Sparsity, "
        "and Attention-Sink-Free",
        year=2025,
        url="https://arxiv.org/abs/2505.06708",
        options=(
            Option(
                "gate",
                "headwise",
                "one gate for every head, or one for every channel of it",
                choices=("headwise", "elementwise"),
            ),
        ),
        presets={"qwen3-next": {"gate": "elementwise"}},
    )
)
class GatedSoftmax(SoftmaxAttention):
    """Softmax attention under a gate of the query's layer input, which its context must have."""

    def __init__(self, spec: AttentionSpec, gate: str = "headwise") -> None:
        super().__init__(spec)
        self.channels = spec.value_dim if gate == "elementwise" else 1
        width = spec.embed_dim or spec.heads * spec.head_dim
        self.gate = nn.Linear(width, spec.heads * self.channels, bias=False)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`.

        Raises:
            ValueError: the context has no ``query_input`` to take the gates from.
        """
        gates = self._gates(context)
        return gates.to(v.dtype) * self.fused(q, k, v, context, q.shape[-1] ** -0.5)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Softmax attention written out, and the gate."""
        return self._gates(context).to(v.dtype) * super().reference(q, k, v, context)

    def flops(self, shape: AttentionShape) -> float:
        """Those of softmax attention, and 2 B Lq E for each gate."""
        rows, width = shape.batch * shape.length_q, self.gate.in_features
        return super().flops(shape) + 2 * rows * width * self.gate.out_features

    def _gates(self, context: AttentionContext | None) -> Tensor:
        """(B, H, Lq, 1 or Dv)."""
        if context is None or context.query_input is None:
            raise ValueError(
                "gated-softmax takes its gates from the layer's input: call it with "
                "context=AttentionContext(query_input=x), x of shape (B, Lq, E)"
            )
        x = self.gate(context.query_input.to(self.gate.weight.dtype)).sigmoid()
        return x.unflatten(-1, (self.spec.heads, self.channels)).transpose(1, 2)
