"""RWKV-7's state: a generalised delta rule with vectors for gates (Peng et al. 2025, arXiv
2503.14456).

    S_t = diag(w_t) S_(t-1) - (a_t ∘ κ_t) (κ_t^T S_(t-1)) + k'_t v_t^T
    o_t = LN(q_t S_t) + (q_t · (u ∘ k'_t)) v_t

with κ = ξ ∘ k of length one, what is removed; k' = k ∘ (1 + (a - 1) ∘ α), what is added; decays
w = exp(-e^(-1/2) sigmoid(W2 tanh(W1 x) + b)) and rates a = sigmoid(A2 A1 x + c), each of one number
a channel; ξ, α and u learned numbers of a channel. The queries are RWKV's
receptance. A removal reads the state before it decays, so that it is two writes of
`attentions.shared.recurrent_scan`: one along a ∘ κ / w, which then decays, and one along k'.

Left to the backbone are the shift of tokens, the mixing of values of layers and the gate on
outputs. A cross slot's queries stand at no token, so there is no u. `attentions.shared.recurrence`
says how the patterns follow.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from attentions.shared.delta_rule import unit
from attentions.shared.gates import cast, input_width, per_head, wide
from attentions.shared.layer_inputs import key_input
from attentions.shared.recurrence import OwnTokens, RecurrentAttention, Writer
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

_EPS = 1e-5
"""Times the width of a head, as the authors set it"""
_FASTEST = -math.exp(-0.5)
"""Logarithm of the fastest decay"""
_BONUS, _REMOVAL = -0.04, 0.71
"""The authors' first values of u and ξ"""


@register_attention(
    AttentionInfo(
        id="rwkv7",
        family=Family.RECURRENT,
        title="RWKV-7 (generalised delta rule)",
        formula="S_i = diag(w_i) S_(i-1) - (a_i ∘ κ_i) κ_i^T S_(i-1) + k'_i v_i^T, o_i = q_i S_i",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.ADAPTED,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L D^2",
        memory="L D",
        paper="Peng et al., RWKV-7 Goose with Expressive Dynamic State Evolution",
        year=2025,
        url="https://arxiv.org/abs/2503.14456",
        options=(Option("norm", True, "layer normalisation of what each head gives"),),
    )
)
class RWKV7(RecurrentAttention):
    """A state that is decayed, removed from and added to, channel by channel."""

    costs = ScanCosts(steps=2, erases=True, by_channel=True)

    def __init__(self, spec: AttentionSpec, norm: bool = True) -> None:
        super().__init__(spec, norm)
        if norm:
            self.bias = nn.Parameter(torch.zeros(spec.heads, 1, spec.value_dim))
            self.weight = nn.Parameter(torch.ones(spec.heads, 1, spec.value_dim))
        if not spec.pattern.cross:
            self.bonus = nn.Parameter(torch.full((spec.heads, 1, spec.head_dim), _BONUS))

    def writer(self) -> Writer:
        """See `RecurrentAttention.writer`."""
        return _Writer(self.spec)

    def reading(self, q: Tensor, k: Tensor | None) -> Tensor:
        """See `RecurrentAttention.reading`."""
        return q

    def finished(self, out: Tensor, own: OwnTokens | None) -> Tensor:
        """Normalised, and with the token's own value."""
        if self.weight is not None:
            mean, eps = out.mean(-1, keepdim=True), _EPS * out.shape[-1]
            out = (out - mean) * (out.var(-1, keepdim=True, correction=0) + eps).rsqrt()
            out = out * self.weight.to(out.dtype) + self.bias.to(out.dtype)
        if own is not None:
            added = self.writers[0].added(own.k, key_input(own.context, "rwkv7", "gates"))
            out = out + (own.q * self.bonus.to(out.dtype) * added).sum(-1, True) * own.v
        return out


class _Writer(Writer):
    def __init__(self, spec: AttentionSpec) -> None:
        super().__init__()
        self.heads, width = spec.heads, spec.heads * spec.head_dim
        rank = max(8, spec.head_dim // 2)
        decay, rate = (nn.Linear(rank, width) for _ in range(2))
        # From channels that hardly decay to those that do at once, in every head.
        spread = torch.linspace(0, 1, spec.head_dim).repeat(spec.heads)
        with torch.no_grad():
            decay.bias.copy_(-5.5 + 6 * spread)
            rate.bias.fill_(-0.19)
        first = [nn.Linear(input_width(spec), rank, bias=False) for _ in range(2)]
        self.decay = nn.Sequential(first[0], nn.Tanh(), decay)
        self.rate = nn.Sequential(first[1], rate)
        self.removal = nn.Parameter(torch.full((spec.heads, 1, spec.head_dim), _REMOVAL))
        self.addition = nn.Parameter(torch.ones(spec.heads, 1, spec.head_dim))

    def forward(self, k: Tensor, v: Tensor, context: AttentionContext | None) -> Writes:
        x = key_input(context, "rwkv7", "gates")
        decay = _FASTEST * self._gate(self.decay, x).to(k.dtype)
        rate = self._gate(self.rate, x).to(k.dtype)
        removed = unit(k * self.removal.to(k.dtype))
        nothing = torch.zeros_like(k)
        pairs = (
            (rate * removed * (-decay).exp(), self.added(k, x)),
            (torch.zeros_like(v), v),
            (nothing, decay),
            (removed, nothing),
        )
        keys, values, decay, erase = (torch.stack(y, dim=-2).flatten(-3, -2) for y in pairs)
        return Writes(keys, values, decay, erase, steps=2)

    def added(self, k: Tensor, x: Tensor) -> Tensor:
        """K' of keys and the layer's input."""
        rate = self._gate(self.rate, x).to(k.dtype)
        return k * (1 + (rate - 1) * self.addition.to(k.dtype))

    def flops(self, shape: AttentionShape) -> float:
        weights = sum(x.numel() for x in self.parameters() if x.ndim == 2)
        return 2.0 * shape.batch * shape.length_k * weights

    def _gate(self, layers: nn.Module, x: Tensor) -> Tensor:
        return per_head(wide(layers(cast(x, layers))), self.heads).sigmoid()
