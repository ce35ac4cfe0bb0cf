"""Gated linear attention: channels of the state fade by what tokens say (Yang et al. 2024, arXiv
2312.06635).

    S_t = diag(a_t) S_(t-1) + k_t v_t^T,   a_t = sigmoid(W2 W1 x_t + b)^(1/16)
    o_t = q_t S_t / sqrt(D)

with W1 of 16 numbers. What a head gives is RMS-normalised, as in the
paper; its gate on outputs is left to the backbone. `attentions.shared.recurrence` says how the
patterns follow.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from attentions.shared.gates import cast, input_width, per_head, wide
from attentions.shared.layer_inputs import key_input
from attentions.shared.recurrence import RecurrentAttention, Writer
from attentions.shared.recurrent_scan import ScanCosts, Writes
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

_RANK = 16
_TEMPERATURE = 16
"""The paper's: gates begin near one"""


@register_attention(
    AttentionInfo(
        id="gla",
        family=Family.RECURRENT,
        title="Gated linear attention (GLA)",
        formula="S_i = diag(a_i) S_(i-1) + k_i v_i^T, a = sigmoid(W x + b)^(1/16), o_i = q_i S_i",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.ADAPTED,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L D^2",
        memory="L D",
        paper="Yang et al., Gated Linear Attention Transformers with Hardware-Efficient Training",
        year=2024,
        url="https://arxiv.org/abs/2312.06635",
        options=(Option("norm", True, "RMS normalisation of what each head gives"),),
    )
)
class GatedLinearAttention(RecurrentAttention):
    """Linear attention whose state fades channel by channel."""

    costs = ScanCosts(by_channel=True)

    def __init__(self, spec: AttentionSpec, norm: bool = True) -> None:
        super().__init__(spec, norm)

    def writer(self) -> Writer:
        """See `RecurrentAttention.writer`."""
        return _Writer(self.spec)


class _Writer(Writer):
    def __init__(self, spec: AttentionSpec) -> None:
        super().__init__()
        self.heads = spec.heads
        self.gate = nn.Sequential(
            nn.Linear(input_width(spec), _RANK, bias=False),
            nn.Linear(_RANK, spec.heads * spec.head_dim),
        )

    def forward(self, k: Tensor, v: Tensor, context: AttentionContext | None) -> Writes:
        x = key_input(context, "gla", "gates")
        gates = per_head(wide(self.gate(cast(x, self.gate))), self.heads)
        return Writes(k, v, F.logsigmoid(gates).to(v.dtype) / _TEMPERATURE)

    def flops(self, shape: AttentionShape) -> float:
        weights = sum(x.numel() for x in self.parameters())
        return 2.0 * shape.batch * shape.length_k * weights
