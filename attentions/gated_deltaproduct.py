"""Gated DeltaProduct: several delta steps a token (Siems et al. 2025, arXiv 2502.10297).

    S_t,0 = a_t S_(t-1),   S_t,j = S_t,j-1 + beta_t,j k_t,j (v_t,j - S_t,j-1^T k_t,j)^T
    S_t = S_t,n,   o_t = q_t S_t / sqrt(D)

with j = 1 .. n, a product of n generalised Householder matrices, beta_t,j in
(0, 2) by default, so that a token can reflect and, with two steps, rotate the state: what tracking
of permutations needs. With one step it is `gated-deltanet` with ``negative``.

Adapted: the paper projects n keys and values of a token from the layer's input. A slot has one of
each; the others are linear maps of them, a (D, D) matrix a head. `attentions.shared.delta_rule`
says what is left to a slot or backbone, `attentions.shared.recurrence` how the patterns follow.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
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
        id="gated-deltaproduct",
        family=Family.RECURRENT,
        title="Gated DeltaProduct",
        formula="S_i = prod_j (1 - β_ij k_ij k_ij^T) a_i S_(i-1) + ..., o_i = q_i S_i: "
        "n delta steps a token",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.ADAPTED,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L D^2",
        memory="L D",
        paper="Siems et al., DeltaProduct: Improving State-Tracking in Linear RNNs via "
        "Householder Products",
        year=2025,
        url="https://arxiv.org/abs/2502.10297",
        options=(
            Option("steps", 2, "n: delta steps of a token", positive=True, most=16),
            Option("negative", True, "let beta reach 2: eigenvalues down to -1"),
            Option("norm", True, "RMS normalisation of what each head gives"),
        ),
    )
)
class GatedDeltaProduct(DeltaRule):
    """A state that each token corrects in several directions."""

    def __init__(
        self, spec: AttentionSpec, steps: int = 2, negative: bool = True, norm: bool = True
    ) -> None:
        self.negative, self.steps = negative, steps
        self.costs = ScanCosts(steps=steps, erases=True)
        super().__init__(spec, norm)

    def writer(self) -> DeltaWriter:
        """See `RecurrentAttention.writer`."""
        return _Writer(self.spec, self.steps, self.negative)


class _Writer(DeltaWriter):
    def __init__(self, spec: AttentionSpec, steps: int, negative: bool) -> None:
        super().__init__(spec, "gated-deltaproduct", SoftplusDecay(spec), negative)
        self.steps = steps
        self.beta = Gate(spec, channels=steps, most=2.0 if negative else 1.0)
        self.more_keys = _maps(steps - 1, spec.heads, spec.head_dim)
        self.more_values = _maps(steps - 1, spec.heads, spec.value_dim)

    def forward(self, k: Tensor, v: Tensor, context: AttentionContext | None) -> Writes:
        x = key_input(context, self.name, "gates")
        assert self.decay is not None
        decay = self.decay(x).to(v.dtype)
        decay = torch.stack([decay, *[torch.zeros_like(decay)] * (self.steps - 1)], dim=-2)
        keys = torch.stack([k, *(k @ m.to(k.dtype) for m in self.more_keys)], dim=-2)
        values = torch.stack([v, *(v @ m.to(v.dtype) for m in self.more_values)], dim=-2)
        beta = self.beta(x).to(v.dtype)[..., None]
        keys, values = unit(F.silu(keys)), beta * F.silu(values)
        keys, values, decay, erase = (y.flatten(-3, -2) for y in (keys, values, decay, beta * keys))
        return Writes(keys, values, decay, erase, self.steps)


def _maps(count: int, heads: int, width: int) -> nn.Parameter:
    """(count, heads, width, width), drawn so that lengths stay about what they are."""
    return nn.Parameter(torch.randn(count, heads, width, width) * width**-0.5)
