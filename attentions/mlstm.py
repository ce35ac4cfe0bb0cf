"""The matrix memory of xLSTM: gates that are exponentials, and outputs that are means (Beck et al.
2024, arXiv 2405.04517).

    C_t = f_t C_(t-1) + i_t k_t v_t^T,   n_t = f_t n_(t-1) + i_t k_t
    o_t = q_t C_t / max(|q_t·n_t|, 1),   f = sigmoid(w·x + b),   i = exp(w'·x + b')

with keys divided by sqrt(D). An input gate may be far above one, so the state
is kept as C_t exp(-m_t) with the running maximum m_t = max(ln f_t + m_(t-1), ln i_t), under which
both gates are at most one: a scan of
`attentions.shared.recurrent_scan`, whose values have one number more, for n. Forget gates begin
open, with b from 3 in the first head to 6 in the last.

Each head is normalised, as layers of xLSTM do; their gate on outputs and the short convolution are
a backbone's or slot's matter. `attentions.shared.recurrence` says how the patterns follow: in
noncausal self attention each direction is a mean by itself.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.gates import cast, input_width, per_head, wide
from attentions.shared.layer_inputs import key_input
from attentions.shared.recurrence import after, before
from attentions.shared.recurrent_scan import (
    ScanCosts,
    Writes,
    recurrent_scan,
    recurrent_step,
    scan_flops,
)
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

_EPS = 1e-5
_FIRST, _LAST = 3.0, 6.0
"""Biases of the forget gates of the first and the last head"""
_LEAST = -80.0
"""m below which outputs are nothing in any dtype"""


@register_attention(
    AttentionInfo(
        id="mlstm",
        family=Family.RECURRENT,
        title="mLSTM (matrix memory of xLSTM)",
        formula="o_i = q_i C_i / max(|q_i·n_i|, 1), C_i = f_i C_(i-1) + i_i k_i v_i^T, "
        "n_i = f_i n_(i-1) + i_i k_i, i = exp(w·x)",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.ADAPTED,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L D^2",
        memory="L D",
        paper="Beck et al., xLSTM: Extended Long Short-Term Memory",
        year=2024,
        url="https://arxiv.org/abs/2405.04517",
        options=(Option("norm", True, "RMS normalisation of what each head gives"),),
    )
)
class MatrixLSTM(Attention):
    """Means of values under gates of the tokens since."""

    def __init__(self, spec: AttentionSpec, norm: bool = True) -> None:
        super().__init__(spec)
        directions = 2 if spec.pattern is Pattern.NONCAUSAL_SELF else 1
        self.gates: Any = nn.ModuleList(_Gates(spec) for _ in range(directions))
        self.weight = nn.Parameter(torch.ones(spec.value_dim)) if norm else None

    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least."""
        dtype = v.dtype
        q, k, v = (wide(x) for x in (q, k, v))
        if self.pattern.cross:
            writes, most = self._writes(0, k, v, context)
            _, state = recurrent_scan(None, writes)
            return self._normed(_means(q @ state, _last(most)[..., None])).to(dtype)
        lag = k.shape[-2] - q.shape[-2]
        rows = F.pad(q, (0, 0, lag, 0))
        writes, most = self._writes(0, k, v, context)
        out = _means(self._scanned(rows, writes), most)
        if self.pattern is Pattern.NONCAUSAL_SELF:
            writes, most = self._writes(1, k, v, context)
            back = _means(self._scanned(before(rows), writes), most)
            out = out + after(back)
        return self._normed(out[..., lag:, :]).to(dtype)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """The matrix of weights, written out; a row is divided by its sum, or by 1 if less."""
        length, lag = k.shape[-2], k.shape[-2] - q.shape[-2]
        total = q.new_zeros(*q.shape[:3], v.shape[-1])
        for direction, gates in enumerate(self.gates):
            forget, let_in = (x.to(k.dtype) for x in gates(context))
            mask = None if context is None else context.key_mask
            if mask is not None:
                forget = forget.masked_fill(~mask[:, None], 0.0)
                let_in = let_in.masked_fill(~mask[:, None], -math.inf)
            past = forget.cumsum(-1)
            rows, columns = (torch.arange(n, device=q.device) for n in (q.shape[-2], length))
            if self.pattern.cross:
                seen, here = rows[:, None] >= 0, past[..., -1:]
            elif direction:
                past = forget.flip(-1).cumsum(-1).flip(-1)
                seen, here = columns > rows[:, None] + lag, F.pad(past[..., lag + 1 :], (0, 1))
            else:
                seen, here = columns <= rows[:, None] + lag, past[..., lag:]
            logs = here[..., :, None] - past[..., None, :] + let_in[..., None, :]
            logs = logs.masked_fill(~seen, -math.inf)
            most = logs.amax(-1, keepdim=True).clamp(min=_LEAST)
            weights = (logs - most).exp() * (q @ k.mT) * q.shape[-1] ** -0.5
            sums = weights.sum(-1, keepdim=True).abs()
            total = total + weights @ v / torch.maximum(sums, (-most).exp())
        return self._normed(total)

    @without_autocast
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """The scaled state (B, H, D, Dv + 1), its last column n, and m (B, H), -inf if empty."""
        writes, most = self._writes(0, wide(k), wide(v), context)
        _, state = recurrent_scan(None, writes)
        return DecodeState(k.shape[-2], {"state": state, "most": _last(most)})

    @without_autocast
    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """Scale the state to the new maximum, write the token, if there is one, and read."""
        dtype, tensors = q_t.dtype, state.tensors
        if k_t is not None and v_t is not None:
            writes, most = self._writes(0, wide(k_t), wide(v_t), context, tensors["most"])
            tensors["state"] = recurrent_step(tensors["state"], writes)
            tensors["most"] = most[..., -1]
            state.length += 1
        out = _means(wide(q_t) @ tensors["state"], tensors["most"][..., None])
        return self._normed(out).to(dtype), state

    def state_size(self, length: int) -> int:
        """H (D (Dv + 1) + 1) numbers, whatever the length."""
        return self.spec.heads * (self.spec.head_dim * (self.spec.value_dim + 1) + 1)

    def flops(self, shape: AttentionShape) -> float:
        """Of the scan, chunk by chunk, and of gates, in each direction."""
        rows, weights = shape.batch * shape.heads, 2 * input_width(self.spec) * shape.heads
        sizes = shape.length_k, shape.head_dim, shape.value_dim + 1
        cost = rows * scan_flops(*sizes, ScanCosts(), outputs=not self.pattern.cross)
        cost += 2.0 * shape.batch * shape.length_k * weights
        if self.pattern.cross:
            cost += 2.0 * rows * shape.length_q * shape.head_dim * (shape.value_dim + 1)
        return len(self.gates) * cost

    def _normed(self, out: Tensor) -> Tensor:
        if self.weight is None:
            return out
        return F.rms_norm(out, out.shape[-1:], self.weight.to(out.dtype), _EPS)

    def _scanned(self, rows: Tensor, writes: Writes) -> Tensor:
        out, _ = recurrent_scan(rows, writes)
        assert out is not None
        return out

    def _writes(
        self,
        direction: int,
        k: Tensor,
        v: Tensor,
        context: AttentionContext | None,
        most_before: Tensor | None = None,
    ) -> tuple[Writes, Tensor]:
        """Writes in the order of a direction under the running maximum, and m (B, H, L), from
        ``most_before`` (B, H) on; -inf where nothing is written yet.
        """
        forget, let_in = (x.double() for x in self.gates[direction](context))
        mask = None if context is None else context.key_mask
        if mask is not None:
            forget = forget.masked_fill(~mask[:, None], 0.0)
            let_in = let_in.masked_fill(~mask[:, None], -math.inf)
        if direction:
            k, v, forget, let_in = k.flip(-2), v.flip(-2), forget.flip(-1), let_in.flip(-1)
        if most_before is None:
            most_before = forget.new_full(forget.shape[:2], -math.inf)
        past = forget.cumsum(-1)
        earlier = torch.cat([most_before[..., None].double(), let_in - past], dim=-1)
        most = earlier.cummax(-1).values
        # Of the state that a token finds, and of what it writes, both at most one.
        empty = most == -math.inf
        kept = (most[..., :-1] - most[..., 1:]).masked_fill(empty[..., :-1], 0.0)
        added = (let_in - past - most[..., 1:]).masked_fill(empty[..., 1:], -math.inf)
        added = added.exp().to(k.dtype)
        keys = k * added[..., None] * k.shape[-1] ** -0.5
        values = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)
        decay = kept[..., None].to(k.dtype)
        return Writes(keys, values, decay), (most[..., 1:] + past).to(k.dtype)


class _Gates(nn.Module):
    """Logarithms of forget and input gates, each (B, H, L)."""

    def __init__(self, spec: AttentionSpec) -> None:
        super().__init__()
        self.heads = spec.heads
        self.project = nn.Linear(input_width(spec), 2 * spec.heads)
        with torch.no_grad():
            self.project.bias[: spec.heads] = torch.linspace(_FIRST, _LAST, spec.heads)
            self.project.bias[spec.heads :] = 0.0

    def forward(self, context: AttentionContext | None) -> tuple[Tensor, Tensor]:
        """Of the layer's input at the keys."""
        x = key_input(context, "mlstm", "gates")
        gates = per_head(wide(self.project(cast(x, self.project))), 2 * self.heads)[..., 0]
        forget, let_in = gates.split(self.heads, dim=1)
        return F.logsigmoid(forget), let_in


def _last(most: Tensor) -> Tensor:
    """(B, H) m after all tokens."""
    return F.pad(most, (1, 0), value=-math.inf)[..., -1]


def _means(out: Tensor, most: Tensor) -> Tensor:
    """Outputs of a scaled state, (..., L, Dv + 1) with n·q last, and m (..., L)."""
    least = (-most.clamp(min=_LEAST)).exp()[..., None]
    return out[..., :-1] / torch.maximum(out[..., -1:].abs(), least)
