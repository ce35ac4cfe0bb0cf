"""S6 as a token mixer: a selective scan in each direction (Gu and Dao 2023, Mamba, arXiv
2312.00752; in several directions, Zhang et al. 2024, VFIMamba, arXiv 2407.02315).

This is not attention. Each channel c of the values is the input of a linear system with N states,
whose step Δ, input B and output C depend on the token:

    h_tc = exp(-Δ_tc A_c) ∘ h_(t-1)c + Δ_tc v_tc B_t,   y_tc = C_t·h_tc + d_c v_tc
    Δ_t = softplus(W_up W_down v_t + b),   A = exp(A_log),   o_t = LayerNorm(y_t)

with B_t the first N numbers of the key and C_t of the query, so that N is at most D. Decays are
read off each token, and a masked one has a step of zero: it leaves the state as it is.

Adapted in these ways.

* The paper's B, C and Δ come from one stream, all channels of a layer share B and C, and a short
  convolution with SiLU goes before the scan, and a gate behind the normalisation. Here B and C are
  those of a head, and convolution and gate are left to the backbone. The normalisation, VFIMamba's,
  is over all heads of a token.
* Noncausal self attention: two scans, forwards and backwards, with steps, rates and d of their own,
  are added; the token's own share is in both. With four ``directions`` there are two more along the
  columns of the grid that the context gives, as in VFIMamba; without a grid it is one row.
* Cross attention: the source is scanned in both directions, and a query reads the last states. It
  writes nothing, and y has no d. VFIMamba scans both of its frames as one interleaved sequence.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.long_short import HeadsLayerNorm
from attentions.shared.autocast import without_autocast
from attentions.shared.selective_scan import selective_scan
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
_RANK = 16
"""Channels for each number that a step is computed from"""


@register_attention(
    AttentionInfo(
        id="s6-mix",
        family=Family.STATE_SPACE,
        title="S6 token mixer (selective scan)",
        formula="h_i = exp(-Δ_i A) ∘ h_(i-1) + Δ_i v_i k_i^T, o_i = LN(h_i q_i + d v_i), Δ of v_i",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.ADAPTED,
            Pattern.CAUSAL_SELF: Grade.ADAPTED,
            Pattern.NONCAUSAL_CROSS: Grade.ADAPTED,
            Pattern.CAUSAL_CROSS: Grade.ADAPTED,
        },
        time="L D N",
        memory="L D",
        paper="Gu and Dao, Mamba: Linear-Time Sequence Modeling with Selective State Spaces",
        year=2023,
        url="https://arxiv.org/abs/2312.00752",
        kind=Kind.MIXER,
        options=(
            Option("state", 16, "N: states of a channel, at most the head's width", positive=True),
            Option(
                "directions",
                "2",
                "noncausal self attention: both of the sequence, or also both of the columns",
                choices=("2", "4"),
            ),
            Option("norm", True, "layer normalisation of the outputs, all heads together"),
        ),
        presets={"vfimamba": {"state": 16, "directions": "4"}},
    )
)
class S6Mixer(Attention):
    """Every channel of the values through a linear system that its tokens steer."""

    def __init__(
        self, spec: AttentionSpec, state: int = 16, directions: str = "2", norm: bool = True
    ) -> None:
        super().__init__(spec)
        self.norm = HeadsLayerNorm(spec.heads, spec.value_dim) if norm else nn.Identity()
        self.state = min(state, spec.head_dim)
        self.scans = 1 if spec.pattern is Pattern.CAUSAL_SELF else 2
        if spec.pattern is Pattern.NONCAUSAL_SELF:
            self.scans = int(directions)
        shape = (self.scans, spec.heads)
        width, rank = spec.value_dim, -(-spec.value_dim // _RANK)
        low, high = math.log(_SHORTEST_STEP), math.log(_LONGEST_STEP)
        first_step = torch.empty(*shape, width).uniform_(low, high).exp()
        rates = torch.arange(1, self.state + 1, dtype=torch.float32)
        self.log_rate = nn.Parameter(rates.log().repeat(*shape, width, 1))
        self.step_down = nn.Parameter(_uniform(*shape, width, rank))
        self.step_up = nn.Parameter(_uniform(*shape, rank, width))
        self.step_bias = nn.Parameter(first_step + torch.log(-torch.expm1(-first_step)))
        if not spec.pattern.cross:
            self.skip = nn.Parameter(torch.ones(*shape, width))

    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least."""
        dtype = v.dtype
        q, k, v = self._wide(q, k, v)
        if self.pattern.cross:
            read = q @ self._read_states(k, v, context).mT
            return self._normalised(read, self._sees(context, q.shape[-2])).to(dtype)
        lag = k.shape[-2] - q.shape[-2]
        # Queries of the tokens before the first are stood in by zeros and dropped.
        q = F.pad(q, (0, 0, lag, 0))
        total = torch.zeros_like(v)
        for scan, order in enumerate(self._orders(v.shape[-2], context, v.device)):
            step = self._steps(v, context, scan)
            step, x, b, c = (y.flatten(0, 1)[:, order] for y in (step, v, k, q))
            y, _ = selective_scan(step, x, b, c, *self._system(v, scan))
            assert y is not None
            placed = torch.empty_like(y).index_copy(1, order, y).unflatten(0, v.shape[:2])
            total = total + placed + self.skip[scan].to(v.dtype)[:, None] * v
        sees = self._sees(context, total.shape[-2] - lag)
        return self._normalised(total[..., lag:, :], sees).to(dtype)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """The recurrence, token by token."""
        (q, k), lag, length = self._first(q, k), k.shape[-2] - q.shape[-2], k.shape[-2]
        total = v.new_zeros(*q.shape[:3], v.shape[-1])
        for scan, order in enumerate(self._orders(length, context, v.device)):
            step, rate = self._steps(v, context, scan), self.log_rate[scan].to(v.dtype).exp()
            state = v.new_zeros(*v.shape[:2], v.shape[-1], self.state)
            outputs: dict[int, Tensor] = {}
            for t in order.tolist():
                own = step[:, :, t, :, None]
                state = (
                    torch.exp(-own * rate) * state + own * v[:, :, t, :, None] * k[:, :, t, None]
                )
                if not self.pattern.cross and t >= lag:
                    y = (state * q[:, :, t - lag, None]).sum(-1)
                    outputs[t] = y + self.skip[scan].to(v.dtype) * v[:, :, t]
            if self.pattern.cross:
                total = total + torch.einsum("bhin,bhdn->bhid", q, state)
            else:
                total = total + torch.stack([outputs[t] for t in range(lag, length)], dim=2)
        return self._normalised(total, self._sees(context, q.shape[-2]))

    @without_autocast
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """The states (B, H, Dv, N) after the prompt, or of the whole source, and whether there is
        a valid token (B,).
        """
        _, keys, values = self._wide(k, k, v)
        mask = k.new_ones(k.shape[0], k.shape[-2], dtype=torch.bool)
        if context is not None and context.key_mask is not None:
            mask = context.key_mask
        states = self._read_states(keys, values, context)
        return DecodeState(k.shape[-2], {"state": states, "some": mask.any(-1)})

    @without_autocast
    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """One step of the recurrence, if the token has a key and value, and a reading."""
        dtype, states = q_t.dtype, state.tensors["state"]
        if k_t is None or v_t is None:
            read = q_t[..., : self.state].to(states.dtype) @ states.mT
            sees = state.tensors["some"][:, None, None, None]
            return self._normalised(read, sees).to(dtype), state
        q_t, k_t, v_t = self._wide(q_t, k_t, v_t)
        step = self._steps(v_t, None, 0).mT
        rate = self.log_rate[0].to(v_t.dtype).exp()
        states = torch.exp(-step * rate) * states + step * v_t.mT * k_t
        state.tensors["state"], state.length = states, state.length + 1
        out = q_t @ states.mT + self.skip[0].to(v_t.dtype)[:, None] * v_t
        return self._normalised(out, None).to(dtype), state

    def state_size(self, length: int) -> int:
        """H Dv N numbers, whatever the length."""
        return self.spec.heads * self.spec.value_dim * self.state

    def flops(self, shape: AttentionShape) -> float:
        """Of the steps, and 6 for each of B H L Dv N numbers of the states, in every direction."""
        rows = shape.batch * shape.heads * shape.length_k
        steps = 4 * rows * shape.value_dim * self.step_up.shape[-2]
        return self.scans * (steps + 6 * rows * shape.value_dim * self.state)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Rates, first steps and d are not decayed, as their authors train them."""
        parameters = [self.log_rate, self.step_bias]
        if not self.pattern.cross:
            parameters.append(self.skip)
        return [{"params": parameters, "weight_decay": 0.0}]

    def _normalised(self, y: Tensor, sees: Tensor | None) -> Tensor:
        """Outputs of y (B, H, Lq, Dv); zeros where a row does not see a key."""
        out: Tensor = self.norm(y)
        return out if sees is None else out.masked_fill(~sees, 0.0)

    def _sees(self, context: AttentionContext | None, length_q: int) -> Tensor | None:
        """(B, 1, Lq or 1, 1), whether a query sees any key; None: all do."""
        if context is None or context.key_mask is None:
            return None
        if self.pattern is Pattern.CAUSAL_SELF:
            seen = context.key_mask.cumsum(-1)[:, context.key_mask.shape[-1] - length_q :] > 0
            return seen[:, None, :, None]
        return context.key_mask.any(-1)[:, None, None, None]

    def _first(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The numbers of queries and keys that are used."""
        return tuple(x[..., : self.state] for x in tensors)

    def _wide(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """C, B and x in float32 at least."""
        dtype = torch.promote_types(v.dtype, torch.float32)
        q, k = self._first(q, k)
        return q.to(dtype), k.to(dtype), v.to(dtype)

    def _steps(self, v: Tensor, context: AttentionContext | None, scan: int) -> Tensor:
        """Δ (B, H, L, Dv) of one scan; zero where masked."""
        down, up, bias = (
            x[scan].to(v.dtype) for x in (self.step_down, self.step_up, self.step_bias)
        )
        step = F.softplus(v @ down @ up + bias[:, None])
        if context is not None and context.key_mask is not None:
            step = step.masked_fill(~context.key_mask[:, None, :, None], 0.0)
        return step

    def _system(self, v: Tensor, scan: int) -> tuple[Tensor, Tensor]:
        """A and a state of zeros, (B H, Dv, N)."""
        rate = self.log_rate[scan].to(v.dtype).exp().repeat(v.shape[0], 1, 1)
        return rate, torch.zeros_like(rate)

    def _read_states(self, k: Tensor, v: Tensor, context: AttentionContext | None) -> Tensor:
        """(B, H, Dv, N) last states, those of both directions added."""
        total = v.new_zeros(*v.shape[:2], v.shape[-1], self.state)
        for scan, order in enumerate(self._orders(v.shape[-2], context, v.device)):
            step = self._steps(v, context, scan)
            step, x, b = (y.flatten(0, 1)[:, order] for y in (step, v, k))
            _, last = selective_scan(step, x, b, None, *self._system(v, scan))
            total = total + last.unflatten(0, v.shape[:2])
        return total

    def _orders(
        self, length: int, context: AttentionContext | None, device: torch.device
    ) -> list[Tensor]:
        """The tokens in the order of each scan."""
        rows = torch.arange(length, device=device)
        columns, grid = rows, None if context is None else context.query_grid
        if grid is not None and len(grid) == 2 and math.prod(grid) == length:
            columns = rows.view(grid).T.flatten()
        return [rows, rows.flip(0), columns, columns.flip(0)][: self.scans]


def _uniform(*shape: int) -> Tensor:
    """Drawn like the weights of a linear layer."""
    bound = shape[-2] ** -0.5
    return torch.empty(*shape).uniform_(-bound, bound)
