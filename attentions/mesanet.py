"""MesaNet: the ridge regression of values on keys, under gates (von Oswald et al. 2025, arXiv
2506.05233).

    o_t = G_v,t^T (G_k,t + diag(λ))^-1 q_t
    G_k,t = a_t G_k,t-1 + beta_t k_t k_t^T,   G_v,t = a_t G_v,t-1 + beta_t k_t v_t^T

with a and beta sigmoids of maps of the layer's input, one number a head; λ at least 1/4, a number
of a channel that begins at 1; queries and keys of length one. It is what
`deltanet` takes one step towards: the state that solves the regression on all tokens so far. With a
= beta = 1 it is ridge regression (the mesa layer of von Oswald et al. 2023, arXiv 2309.05858).

The authors solve by 30 steps of conjugate gradients; here systems are solved to the last digit, by
`attentions.shared.ridge_states`. In noncausal self attention the matrices of both directions, each
with gates of its own, are added before one solve. Heads are RMS-normalised, as the authors' are;
the short convolution is a slot's matter. `attentions.shared.recurrence` says how cross attention
follows: one system for all queries.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.delta_rule import unit
from attentions.shared.gates import cast, input_width, per_head, wide
from attentions.shared.layer_inputs import key_input
from attentions.shared.recurrence import RecurrentAttention, Writer, after, before
from attentions.shared.recurrent_scan import Writes, recurrent_scan, recurrent_step
from attentions.shared.ridge_states import last_gram, ridge_scan, spd_solve
from cab import (
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

_LEAST, _FIRST = 0.25, 1.0
"""The smallest λ, and the first"""


@register_attention(
    AttentionInfo(
        id="mesanet",
        family=Family.RECURRENT,
        title="MesaNet (optimal test-time regression)",
        formula="o_i = G_v^T (G_k + diag(λ))^-1 q_i, G_k = sum_j a^(i-j) β_j k_j k_j^T, "
        "G_v = sum_j a^(i-j) β_j k_j v_j^T",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.ADAPTED,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L D^3",
        memory="L D",
        paper="von Oswald et al., MesaNet: Sequence Modeling by Locally Optimal Test-Time Training",
        year=2025,
        url="https://arxiv.org/abs/2506.05233",
        options=(Option("norm", True, "RMS normalisation of what each head gives"),),
    )
)
class MesaNet(RecurrentAttention):
    """Regression on all tokens so far, solved anew at each of them."""

    def __init__(self, spec: AttentionSpec, norm: bool = True) -> None:
        super().__init__(spec, norm)
        first = math.log(math.expm1(_FIRST - _LEAST))
        self.ridge = nn.Parameter(torch.full((spec.heads, spec.head_dim), first))

    def writer(self) -> Writer:
        """See `RecurrentAttention.writer`."""
        return _Writer(self.spec)

    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least."""
        dtype = v.dtype
        q, k, v = unit(wide(q)), unit(wide(k)), wide(v)
        writes = self._writes(0, k, v, context)
        if self.pattern.cross:
            rows = self._solved_once(q, last_gram(k, writes.keys, _decay(writes)))
            _, state = recurrent_scan(None, writes)
            return self.finished(rows @ state, None).to(dtype)
        lag = k.shape[-2] - q.shape[-2]
        q = F.pad(q, (0, 0, lag, 0))
        directions = [(k, writes.keys, _decay(writes))]
        if self.pattern is Pattern.CAUSAL_SELF:
            rows = ridge_scan(q, directions, self._ridge(q))
            out, _ = recurrent_scan(rows, writes)
        else:
            behind = self._writes(1, k, v, context)
            directions.append((k, behind.keys, _decay(behind)))
            rows = ridge_scan(q, directions, self._ridge(q))
            out, _ = recurrent_scan(rows, writes)
            back, _ = recurrent_scan(before(rows), behind.reversed())
            assert out is not None
            assert back is not None
            out = out + after(back)
        assert out is not None
        return self.finished(out[..., lag:, :], None).to(dtype)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Weights of all pairs, and the system of every query written out."""
        q, k, lag = unit(q), unit(k), k.shape[-2] - q.shape[-2]
        rows, columns = (torch.arange(n, device=q.device) for n in (q.shape[-2], k.shape[-2]))
        gram = torch.diag_embed(self._ridge(q))[:, None].expand(len(q), -1, q.shape[-2], -1, -1)
        read = q.new_zeros(*q.shape, v.shape[-1])
        for direction in range(len(self.writers)):
            writes = self._writes(direction, k, v, context)
            decay = _decay(writes)[..., 0]
            past = decay.cumsum(-1)
            if self.pattern.cross:
                seen, here = rows[:, None] >= 0, past[..., -1:]
            elif direction:
                past = decay.flip(-1).cumsum(-1).flip(-1)
                seen, here = columns > rows[:, None] + lag, F.pad(past[..., lag + 1 :], (0, 1))
            else:
                seen, here = columns <= rows[:, None] + lag, past[..., lag:]
            between = (here[..., :, None] - past[..., None, :]).masked_fill(~seen, -math.inf)
            weighted = between.exp()[..., None] * writes.keys[..., None, :, :]
            gram = gram + weighted.mT @ k[..., None, :, :]
            read = read + weighted.mT @ v[..., None, :, :]
        x = torch.linalg.solve(gram, q[..., None])
        return self.finished((x.mT @ read)[..., 0, :], None)

    @without_autocast
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """G_k (B, H, D, D) and G_v (B, H, D, Dv) after the prompt or source."""
        k, v = unit(wide(k)), wide(v)
        writes = self._writes(0, k, v, context)
        _, state = recurrent_scan(None, writes)
        gram = last_gram(k, writes.keys, _decay(writes))
        return DecodeState(k.shape[-2], {"state": state, "gram": gram})

    @without_autocast
    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """Add the token to both matrices, if it has a key and value, solve and read."""
        dtype, tensors = q_t.dtype, state.tensors
        if k_t is not None and v_t is not None:
            k_t = unit(wide(k_t))
            writes = self._writes(0, k_t, wide(v_t), context)
            of_keys = Writes(writes.keys, k_t, writes.decay)
            tensors["state"] = recurrent_step(tensors["state"], writes)
            tensors["gram"] = recurrent_step(tensors["gram"], of_keys)
            state.length += 1
        rows = self._solved_once(unit(wide(q_t)), tensors["gram"])
        return self.finished(rows @ tensors["state"], None).to(dtype), state

    def state_size(self, length: int) -> int:
        """H D (D + Dv) numbers, whatever the length."""
        return super().state_size(length) + self.spec.heads * self.spec.head_dim**2

    def flops(self, shape: AttentionShape) -> float:
        """Of both scans, a factorisation for each token, and gates."""
        rows, width = shape.batch * shape.heads, shape.head_dim
        systems = 1 if self.pattern.cross else shape.length_k
        of_keys = 2.0 * len(self.writers) * shape.length_k * width**2
        solutions = 4.0 * max(shape.length_q, systems) * width**2
        return super().flops(shape) + rows * (of_keys + systems * width**3 / 3 + solutions)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """λ is not decayed, as its authors train it."""
        return [{"params": [self.ridge], "weight_decay": 0.0}]

    def _ridge(self, like: Tensor) -> Tensor:
        """λ (H, D)."""
        return F.softplus(self.ridge.to(like.dtype)) + _LEAST

    def _solved_once(self, q: Tensor, gram: Tensor) -> Tensor:
        """(B, H, Lq, D) solutions for queries that share a matrix (B, H, D, D)."""
        return spd_solve(gram + torch.diag_embed(self._ridge(q)), q.mT).mT


class _Writer(Writer):
    def __init__(self, spec: AttentionSpec) -> None:
        super().__init__()
        self.heads = spec.heads
        self.project = nn.Linear(input_width(spec), 2 * spec.heads)

    def forward(self, k: Tensor, v: Tensor, context: AttentionContext | None) -> Writes:
        x = key_input(context, "mesanet", "gates")
        gates = per_head(wide(self.project(cast(x, self.project))), 2 * self.heads)
        decay, beta = gates.to(k.dtype).split(self.heads, dim=1)
        return Writes(beta.sigmoid() * k, v, F.logsigmoid(decay))

    def flops(self, shape: AttentionShape) -> float:
        return 2.0 * shape.batch * shape.length_k * self.project.weight.numel()


def _decay(writes: Writes) -> Tensor:
    """(B, H, L, 1)."""
    assert writes.decay is not None
    return writes.decay
