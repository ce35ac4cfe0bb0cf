"""Gated DeltaNet-2: what is erased and what is written have gates of their own channels
(Hatamizadeh et al. 2026, arXiv 2605.22791).

    S_t = S' + k_t (w_t ∘ v_t - S'^T (b_t ∘ k_t))^T,   S' = diag(a_t) S_(t-1)
    o_t = q_t S_t / sqrt(D)

with a_t = exp(-e^A softplus(W2 W1 x_t + B)), b_t in (0, 1)^D and w_t in (0, 1)^Dv sigmoids of maps
of the layer's input. With b = w = beta it is `kda`.

Adapted: b and w are full maps in the authors' layer, which a tenth of a backbone's parameters does
not hold; here they are of the rank that the map of a has, a head's width.
`attentions.shared.delta_rule` says what is left to a slot or backbone,
`attentions.shared.recurrence` how the patterns follow.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from attentions.shared.delta_rule import DeltaRule, DeltaWriter, unit
from attentions.shared.gates import Gate, SoftplusDecay
from attentions.shared.layer_inputs import key_input
from attentions.shared.recurrent_scan import ScanCosts, Writes
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


@register_attention(
    AttentionInfo(
        id="gdn2",
        family=Family.RECURRENT,
        title="Gated DeltaNet-2",
        formula="S_i = D_i S_(i-1) + k_i (w_i ∘ v_i - (D_i S_(i-1))^T (b_i ∘ k_i))^T, "
        "o_i = q_i S_i",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.ADAPTED,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L D^2",
        memory="L D",
        paper="Hatamizadeh et al., Gated DeltaNet-2: Decoupling Erase and Write in Linear "
        "Attention",
        year=2026,
        url="https://arxiv.org/abs/2605.22791",
        options=(
            Option("negative", False, "let beta reach 2: eigenvalues down to -1"),
            Option("norm", True, "RMS normalisation of what each head gives"),
        ),
    )
)
class GatedDeltaNet2(DeltaRule):
    """A state whose channels are erased, written and faded each by itself."""

    costs = ScanCosts(erases=True, by_channel=True)

    def __init__(self, spec: AttentionSpec, negative: bool = False, norm: bool = True) -> None:
        self.negative = negative
        super().__init__(spec, norm)

    def writer(self) -> DeltaWriter:
        """See `RecurrentAttention.writer`."""
        return _Writer(self.spec, self.negative)


class _Writer(DeltaWriter):
    def __init__(self, spec: AttentionSpec, negative: bool) -> None:
        rank = spec.value_dim
        decay = SoftplusDecay(spec, channels=spec.head_dim, rank=rank)
        super().__init__(spec, "gdn2", decay, negative)
        self.beta = Gate(spec, channels=spec.head_dim, rank=rank, most=2.0 if negative else 1.0)
        self.write = Gate(spec, channels=spec.value_dim, rank=rank)

    def forward(self, k: Tensor, v: Tensor, context: AttentionContext | None) -> Writes:
        x = key_input(context, self.name, "gates")
        assert self.decay is not None
        k, decay = unit(F.silu(k)), self.decay(x).to(v.dtype)
        erase, write = (gate(x).to(v.dtype) for gate in (self.beta, self.write))
        return Writes(k, write * F.silu(v), decay, erase * k)
