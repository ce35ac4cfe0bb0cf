"""S4D: a diagonal state-space model in the place of attention (Gu et al. 2022, arXiv 2206.11893).

This is not attention: queries and keys are not used, and what a token receives from another depends
on their distance alone. Each of the E = H·Dv channels of the values is the input u of a linear
system of its own with N/2 complex states, in continuous time

    x'(t) = λ x(t) + u(t),   y(t) = 2 Re sum_n C_n x_n(t) + d u(t)

discretised with a step Δ_e of the channel (zero-order hold):

    x_t = e^(Δλ) x_(t-1) + u_t,   y_t = 2 Re sum_n C'_n x_tn + d u_t,   C' = C (e^(Δλ) - 1) / λ
    o_t = GELU(y_t)

which is a causal convolution with the kernel k[l] = 2 Re sum_n C'_n e^(Δλ_n l), and so it is
computed, see `attentions.shared.long_convolution`. In noncausal slots a second kernel of the same
exponents, with amplitudes of its own, brings the future; it starts with the next token.

As in CAB the eigenvalues λ are shared by the channels and start as S4D-Inv,
λ_n = -1/2 + i/pi N (N / (2 n + 1) - 1), and B is 1, absorbed in C. CAB's class takes the layer's
input, makes H maps of every channel and brings H E^2 output weights; this is one map per channel
between the slot's value and output projections. The published models use 64 states; the default is
16, as in CAB, so that both directions stay within a tenth of a small model's parameters.

Positions are times: a masked token is a zero input, and time runs on over it. CAB lets it through.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.long_convolution import (
    CHUNK,
    exponential_kernel,
    final_state,
    gelu_convolution,
)
from attentions.shared.positions import at_positions, prompt_at_positions
from cab import (
    Attention,
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

_SHORTEST_STEP, _LONGEST_STEP = 1e-3, 1e-1
_MAX_LEARNING_RATE = 1e-3


@register_attention(
    AttentionInfo(
        id="s4d",
        family=Family.STATE_SPACE,
        title="S4D (diagonal state-space model)",
        formula="o_i = GELU(sum_j k[i - j] v_j + d v_i), k[l] = 2 Re sum_n C'_n e^(Δ λ_n l)",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.FAITHFUL,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
        },
        absent={
            Pattern.NONCAUSAL_CROSS: "it maps one sequence to one of the same length and has no "
            "queries",
            Pattern.CAUSAL_CROSS: "it maps one sequence to one of the same length and has no "
            "queries",
        },
        time="L D N",
        memory="L D",
        paper="Gu et al., On the Parameterization and Initialization of Diagonal State Space "
        "Models",
        year=2022,
        url="https://arxiv.org/abs/2206.11893",
        kind=Kind.MIXER,
        options=(
            Option("state", 16, "N: real numbers of a channel's state, even", least=2),
            Option("bidirectional", True, "noncausal slots: a second kernel for the future"),
        ),
        presets={
            "cab": {"state": 16, "bidirectional": False},
            "paper": {"state": 64, "bidirectional": True},
        },
    )
)
class S4D(Attention):
    """Every channel of the values through a linear system of its own; no attention."""

    def __init__(self, spec: AttentionSpec, state: int = 16, bidirectional: bool = True) -> None:
        super().__init__(spec)
        if state % 2:
            raise ValueError(f"state must be even (conjugate pairs), not {state}")
        channels, pairs = spec.heads * spec.value_dim, state // 2
        sides = 1 if spec.pattern is Pattern.CAUSAL_SELF or not bidirectional else 2
        low, high = math.log(_SHORTEST_STEP), math.log(_LONGEST_STEP)
        index = torch.arange(pairs)
        eigenvalues = torch.complex(
            torch.full((pairs,), -0.5), state / math.pi * (state / (2 * index + 1) - 1)
        )
        # With B drawn like C and scaled so that a constant input gives outputs of variance 1.
        b = torch.randn(pairs, dtype=torch.cfloat)
        b = b / (2 * (b / eigenvalues).abs().square().sum()).sqrt()
        c = torch.randn(sides, channels, pairs, dtype=torch.cfloat) * b
        self.log_step = nn.Parameter(low + (high - low) * torch.rand(channels))
        self.log_decay = nn.Parameter(torch.log(-eigenvalues.real))
        self.frequency = nn.Parameter(eigenvalues.imag.clone())
        self.output = nn.Parameter(torch.view_as_real(c).clone())
        self.skip = nn.Parameter(torch.randn(channels))
        self.state = state

    @at_positions
    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least."""
        u = _inputs(v)
        rate, amplitude = self._discretised(u.dtype)
        out = gelu_convolution(u, exponential_kernel(rate, amplitude, self.skip.to(u.dtype)))
        return out[..., v.shape[-2] - q.shape[-2] :, :].to(v.dtype)

    @at_positions
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Convolution with the kernels written out as a matrix between tokens."""
        u = _inputs(v)
        length = v.shape[-2]
        lag = torch.arange(length, device=v.device)
        rate, amplitude = self._discretised(u.dtype)
        past, *future = ((rate[..., None] * lag).exp() * amplitude[..., None]).real.sum(-2)
        between = lag[:, None] - lag[None, :]
        matrix = past[:, between.clamp(min=0)] * (between >= 0)
        for kernel in future:
            matrix = matrix + kernel[:, (-between - 1).clamp(min=0)] * (between < 0)
        matrix = matrix.unflatten(0, (self.spec.heads, -1))
        skip = self.skip.unflatten(0, (self.spec.heads, 1, -1))
        out = F.gelu(torch.einsum("hdts,bhsd->bhtd", matrix, u) + skip * u)
        return out[..., length - q.shape[-2] :, :]

    @prompt_at_positions
    @without_autocast
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """The complex states (B, H, Dv, N/2) after the prompt."""
        u = _inputs(v)
        rate, amplitude = self._discretised(u.dtype)
        kernel = exponential_kernel(rate, amplitude, self.skip.to(u.dtype))
        return DecodeState(v.shape[-2], {"state": final_state(u, kernel)})

    @without_autocast
    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """One step of the recurrence."""
        assert v_t is not None
        u = _inputs(v_t)
        rate, amplitude = (
            x.unflatten(-2, (self.spec.heads, -1)) for x in self._discretised(u.dtype)
        )
        states = rate.exp() * state.tensors["state"] + u[..., 0, :, None]
        y = (amplitude[0] * states).real.sum(-1) + self.skip.unflatten(0, u.shape[1::2]) * u[
            ..., 0, :
        ]
        state.tensors["state"] = states
        state.length += 1
        return F.gelu(y)[..., None, :].to(v_t.dtype), state

    def state_size(self, length: int) -> int:
        """H Dv N real numbers, whatever the length."""
        return self.spec.heads * self.spec.value_dim * self.state

    def flops(self, shape: AttentionShape) -> float:
        """2 B L H Dv times the length of a chunk, and twice the states."""
        elements = shape.batch * shape.heads * shape.length_k * shape.value_dim
        return 2 * elements * (CHUNK + 2 * len(self.output) * self.state)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Step lengths and eigenvalues, which a long recurrence amplifies: no weight decay, and a
        learning rate of at most 1e-3, as its authors train them.
        """
        parameters = [self.log_step, self.log_decay, self.frequency]
        return [{"params": parameters, "weight_decay": 0.0, "max_lr": _MAX_LEARNING_RATE}]

    def _discretised(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Δλ (E, N/2) and the amplitudes 2 C' (S, E, N/2) of the kernels, complex."""
        eigenvalues = torch.complex(-self.log_decay.to(dtype).exp(), self.frequency.to(dtype))
        rate = self.log_step.to(dtype).exp()[:, None] * eigenvalues
        c = torch.view_as_complex(self.output.to(dtype))
        return rate, 2 * c * torch.expm1(rate) / eigenvalues


def _inputs(v: Tensor) -> Tensor:
    """Values in float32 at least; masked ones are zero already."""
    return v.to(torch.promote_types(v.dtype, torch.float32))
