"""Mechanisms whose tokens write to one state: how the four patterns, masks and decoding follow.

A mechanism says what a token writes (`RecurrentAttention.writer`), and how queries read. From that:

* Causal self attention: o_i reads the state after token i.
* Noncausal self attention: two scans, from the first token on and from the last one back, each with
  gates of its own, are added. The one from the back is read before the token itself writes, so that
  its own value counts once.
* Cross attention, causal or not: the source is written in its order, and all queries read the last
  state. What is written depends on the source alone. Where gates forget, late tokens of the source
  weigh more: that is what such a state is, and one reason to measure it there.

A masked token does nothing to the state. Where decays count places and not what a token holds
(`Writer.counts_places`), they go on over masked tokens, but not behind the last one of a source.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.masks import valid_lengths
from attentions.shared.recurrent_scan import (
    ScanCosts,
    Writes,
    recurrent_loop,
    recurrent_scan,
    recurrent_step,
    scan_flops,
)
from cab import (
    Attention,
    AttentionContext,
    AttentionShape,
    AttentionSpec,
    DecodeState,
    Pattern,
)

_EPS = 1e-5


class Writer(nn.Module):
    """What tokens write: keys, values and gates of one direction."""

    counts_places: ClassVar[bool] = False
    """Whether decays are the same for every token"""

    def forward(self, k: Tensor, v: Tensor, context: AttentionContext | None) -> Writes:
        """Of k (B, H, L, D) and v (B, H, L, Dv), in the dtype to compute in."""
        raise NotImplementedError

    def flops(self, shape: AttentionShape) -> float:
        """Of gates; those of the scan are counted elsewhere."""
        return 0.0


@dataclass(frozen=True)
class OwnTokens:
    """The tokens that queries stand at, in self attention, in the dtype to compute in."""

    q: Tensor
    k: Tensor
    v: Tensor
    context: AttentionContext | None
    """Its ``key_input`` is theirs"""


class RecurrentAttention(Attention):
    """Base of mechanisms with one state (D, Dv) a head, read as o = q S."""

    costs: ScanCosts = ScanCosts()
    """Of the scan; an instance may have its own"""

    def __init__(self, spec: AttentionSpec, norm: bool) -> None:
        super().__init__(spec)
        directions = 2 if spec.pattern is Pattern.NONCAUSAL_SELF else 1
        self.writers: Any = nn.ModuleList(self.writer() for _ in range(directions))
        self.weight = nn.Parameter(torch.ones(spec.value_dim)) if norm else None

    def writer(self) -> Writer:
        """A new writer; called while the module is constructed."""
        raise NotImplementedError

    def reading(self, q: Tensor, k: Tensor | None) -> Tensor:
        """(B, H, L, D) what the state is multiplied by, of queries and, in self attention, the keys
        of their tokens, in the dtype to compute in.
        """
        return q * q.shape[-1] ** -0.5

    def finished(self, out: Tensor, own: OwnTokens | None) -> Tensor:
        """What becomes of o; ``own`` is None in cross attention. Here: RMS normalisation of each
        head, if there is one.
        """
        if self.weight is None:
            return out
        return F.rms_norm(out, out.shape[-1:], self.weight.to(out.dtype), _EPS)

    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least."""
        dtype = v.dtype
        q, k, v = _wide(q, k, v)
        if self.pattern.cross:
            _, state = recurrent_scan(None, self._writes(0, k, v, context))
            return self.finished(self.reading(q, None) @ state, None).to(dtype)
        lag = k.shape[-2] - q.shape[-2]
        # Queries of the tokens before the first are stood in by zeros and dropped.
        rows = self.reading(F.pad(q, (0, 0, lag, 0)), k)
        out, _ = recurrent_scan(rows, self._writes(0, k, v, context))
        assert out is not None
        if self.pattern is Pattern.NONCAUSAL_SELF:
            back, _ = recurrent_scan(before(rows), self._writes(1, k, v, context).reversed())
            assert back is not None
            out = out + after(back)
        return self.finished(out[..., lag:, :], _own(q, k, v, context)).to(dtype)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Token by token."""
        if self.pattern.cross:
            state = v.new_zeros(*k.shape[:2], k.shape[-1], v.shape[-1])
            state = recurrent_step(state, self._writes(0, k, v, context))
            return self.finished(self.reading(q, None) @ state, None)
        lag = k.shape[-2] - q.shape[-2]
        rows = self.reading(F.pad(q, (0, 0, lag, 0)), k)
        out = recurrent_loop(rows, self._writes(0, k, v, context))
        if self.pattern is Pattern.NONCAUSAL_SELF:
            back = recurrent_loop(before(rows), self._writes(1, k, v, context).reversed())
            out = out + after(back)
        return self.finished(out[..., lag:, :], _own(q, k, v, context))

    @without_autocast
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """The state (B, H, D, Dv) after the prompt or source, in float32 at least."""
        k, v = _wide(k, v)
        _, state = recurrent_scan(None, self._writes(0, k, v, context))
        return DecodeState(k.shape[-2], {"state": state})

    @without_autocast
    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """Write the token, if it has a key and value, and read."""
        dtype, (q_t,), own = q_t.dtype, _wide(q_t), None
        if k_t is not None and v_t is not None:
            k_t, v_t = _wide(k_t, v_t)
            own = OwnTokens(q_t, k_t, v_t, context)
            writes = self.writers[0](k_t, v_t, context)
            state.tensors["state"] = recurrent_step(state.tensors["state"], writes)
            state.length += k_t.shape[-2]
        out = self.reading(q_t, k_t) @ state.tensors["state"]
        return self.finished(out, own).to(dtype), state

    def state_size(self, length: int) -> int:
        """H D Dv numbers, whatever the length."""
        return self.spec.heads * self.spec.head_dim * self.spec.value_dim

    def flops(self, shape: AttentionShape) -> float:
        """Of the scan, chunk by chunk, and of gates, in each direction."""
        rows, cross = shape.batch * shape.heads, self.pattern.cross
        sizes = shape.length_k, shape.head_dim, shape.value_dim
        scan = rows * scan_flops(*sizes, self.costs, outputs=not cross)
        if cross:
            scan += 2.0 * rows * shape.length_q * shape.head_dim * shape.value_dim
        return len(self.writers) * (scan + self.writers[0].flops(shape))

    def _writes(
        self, direction: int, k: Tensor, v: Tensor, context: AttentionContext | None
    ) -> Writes:
        """Of all tokens, in their order; masked ones do nothing."""
        writer = self.writers[direction]
        writes: Writes = writer(k, v, context)
        mask = None if context is None else context.key_mask
        if mask is None:
            return writes
        if not writer.counts_places:
            return writes.without(~mask)
        if self.pattern.cross:
            # No time passes behind the last token of a source.
            places = torch.arange(mask.shape[-1], device=mask.device)
            writes = writes.without(places >= valid_lengths(mask)[:, None])
        return writes.only(mask)


def _wide(*tensors: Tensor) -> tuple[Tensor, ...]:
    """In float32 at least."""
    return tuple(x.to(torch.promote_types(x.dtype, torch.float32)) for x in tensors)


def _own(q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None) -> OwnTokens:
    """The last tokens, as many as queries."""
    count = q.shape[-2]
    lag = k.shape[-2] - count
    if context is not None and context.key_input is not None:
        context = replace(context, key_input=context.key_input[:, lag:])
    return OwnTokens(q, k[..., lag:, :], v[..., lag:, :], context)


def before(rows: Tensor) -> Tensor:
    """Queries of a scan from the back, each put where the token after its own is written."""
    return F.pad(rows.flip(-2)[..., 1:, :], (0, 0, 0, 1))


def after(out: Tensor) -> Tensor:
    """Outputs of such a scan in the order of tokens; the last one sees nothing from the back."""
    return F.pad(out[..., :-1, :], (0, 0, 1, 0)).flip(-2)
