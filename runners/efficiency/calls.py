"""The calls that are timed: forward, forward and backward, decoding, each on fresh inputs."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cab import Attention, AttentionContext, DecodeState
from runners.efficiency.inputs import Inputs, NumberPool
from runners.efficiency.settings import EfficiencySettings
from runners.outcome import UnsupportedError

PHASES = ("forward", "forward_backward", "decode")

_MOST_TOKENS = 16
"""Decoding: tokens of one timed call, so that appending and clock are shared among several."""
_GROWTH = 16
"""Decoding: the context may grow by this part of itself before it is made anew."""


@dataclass(frozen=True)
class PreparedCall:
    """A call with its inputs already made; gives the whole output, so that all of it is needed."""

    run: Callable[[], Tensor]
    inputs: Callable[[], Inputs]
    """What it runs on. In decoding the queries of this call's tokens, and all keys up to the last
    of them, which are joined only where somebody looks."""

    def __call__(self) -> Tensor:
        """Run it."""
        return self.run()


@dataclass
class CallFactory:
    """Makes calls of one length; every call gets inputs that no earlier call has seen."""

    settings: EfficiencySettings
    length: int
    """Queries; in decoding the context, of which no query is part"""
    phase: str
    device: torch.device
    generator: torch.Generator
    order: random.Random = field(default_factory=lambda: random.Random(0))
    _sessions: dict[int, _Session] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        s = self.settings
        longest = max(self.length, s.source(self.length))
        size = s.batch * s.heads * longest * s.head_dim
        self._pool = NumberPool(size, s.head_dim, self.device, s.dtype, self.generator, self.order)

    @property
    def tokens(self) -> int:
        """Outputs that one call stands for: its time and energy are divided by this."""
        return max(1, min(_MOST_TOKENS, self.length // _GROWTH)) if self.phase == "decode" else 1

    def source(self, module: Attention) -> int:
        """Keys of a call."""
        return self.settings.source(self.length) if module.pattern.cross else self.length

    def prepare(self, module: Attention) -> PreparedCall:
        """Draw inputs and give the call on them.

        Raises:
            UnsupportedError: decoding, and the mechanism has no step or the pattern no order.
        """
        if self.phase == "decode":
            return self._decode(module)
        inputs = self._draw(module, self.length, self.source(module))
        q, k, v, context = inputs.q, inputs.k, inputs.v, inputs.context
        if self.phase == "forward":

            def forward() -> Tensor:
                with torch.no_grad():
                    return module(q, k, v, context)

            return PreparedCall(forward, lambda: inputs)
        for leaf in (q, k, v):
            leaf.requires_grad_()
        gradient = inputs.gradient = self._heads(self.length)

        def forward_backward() -> Tensor:
            out = module(q, k, v, context)
            if out.requires_grad:
                out.backward(gradient)
            for parameter in module.parameters():
                parameter.grad = None
            return out.detach()

        return PreparedCall(forward_backward, lambda: inputs)

    def prefilled(self, module: Attention) -> DecodeState:
        """State of a mechanism after a context of this length.

        Raises:
            UnsupportedError: it cannot decode.
        """
        return self._session(module).state

    def _decode(self, module: Attention) -> PreparedCall:
        limit = max(self.tokens, self.length // _GROWTH)
        session = self._sessions.get(id(module))
        if session is None or session.grown + self.tokens > limit:
            session = self._sessions[id(module)] = self._session(module)
        new = self._draw(module, self.tokens, self.tokens)
        session.new.append(new)
        joined = session.joined(new, module.pattern.cross)
        steps = [self._step(module, new, i, session.grown + i) for i in range(self.tokens)]
        session.grown += self.tokens

        def decode() -> Tensor:
            rows, state = [], session.state
            with torch.no_grad():
                for q_t, k_t, v_t, token in steps:
                    row, state = module.step(q_t, k_t, v_t, state, **token)
                    rows.append(row)
                session.state = state
                return torch.cat(rows, dim=-2)

        return PreparedCall(decode, joined)

    def _step(
        self, module: Attention, new: Inputs, i: int, place: int
    ) -> tuple[Tensor, Tensor | None, Tensor | None, dict[str, AttentionContext]]:
        """Arguments of `Attention.step` for one token."""
        cross = module.pattern.cross
        own = slice(i, i + 1)
        q_t, k_t, v_t = (x[:, :, own].contiguous() for x in (new.q, new.k, new.v))
        token: dict[str, AttentionContext] = {}
        if module.step_takes_context():
            layer = new.context.query_input
            inputs = None if layer is None else layer[:, own].contiguous()
            position = torch.tensor([place if cross else self.length + place], device=self.device)
            token["context"] = AttentionContext(
                query_input=inputs,
                key_input=None if cross else inputs,
                query_positions=position,
                key_positions=None if cross else position,
            )
        return q_t, None if cross else k_t, None if cross else v_t, token

    def _session(self, module: Attention) -> _Session:
        if not module.pattern.causal:
            raise UnsupportedError(f"{module.pattern} has no order to decode in")
        if not module.decodes():
            raise UnsupportedError("it has no decoding step")
        past = self._draw(module, 1, self.length)
        context = past.context
        if not module.pattern.cross:
            context = AttentionContext(query_input=context.key_input, key_input=context.key_input)
        with torch.no_grad():
            state = module.prefill(past.k, past.v, context)
        return _Session(state, past)

    def _draw(self, module: Attention, queries: int, keys: int) -> Inputs:
        context = AttentionContext()
        if module.spec.embed_dim is not None:
            width = module.spec.embed_dim
            own = self._pool.cut(self.settings.batch, queries, width)
            source = own
            if module.pattern.cross or queries != keys:
                source = self._pool.cut(self.settings.batch, keys, width)
            context = AttentionContext(query_input=own, key_input=source)
        return Inputs(self._heads(queries), self._heads(keys), self._heads(keys), context)

    def _heads(self, length: int) -> Tensor:
        s = self.settings
        return self._pool.cut(s.batch, s.heads, length, s.head_dim)


@dataclass
class _Session:
    """A context that is being decoded from."""

    state: DecodeState
    past: Inputs
    new: list[Inputs] = field(default_factory=list)
    grown: int = 0
    """Tokens since the state was made"""

    def joined(self, queries: Inputs, cross: bool) -> Callable[[], Inputs]:
        """The queries of the coming tokens beside all keys up to the last of them."""
        parts = [self.past] if cross else [self.past, *self.new]
        own = queries.context.query_input
        first = self.grown if cross else self.grown + self.past.k.shape[-2]
        positions = torch.arange(first, first + queries.q.shape[-2], device=queries.q.device)

        def join() -> Inputs:
            layer = [x for x in (part.context.key_input for part in parts) if x is not None]
            return Inputs(
                queries.q,
                torch.cat([part.k for part in parts], dim=-2),
                torch.cat([part.v for part in parts], dim=-2),
                AttentionContext(
                    query_input=own,
                    key_input=torch.cat(layer, dim=1) if layer else None,
                    query_positions=positions,
                ),
            )

        return join
