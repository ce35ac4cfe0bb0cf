"""CUDA graphs: a call recorded once and replayed, so that its time holds no launch cost.

Replays read and write fixed memory; fresh inputs are copied there before each, outside the clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cab import Attention
from runners.efficiency.calls import CallFactory, PreparedCall
from runners.efficiency.inputs import Inputs
from runners.outcome import UnsupportedError

_WARM_UP = 3


@dataclass
class GraphedCalls(CallFactory):
    """Makes calls as `CallFactory` does, as replays of one recorded call for each module."""

    _recorded: dict[int, _Recording] = field(default_factory=dict, repr=False)

    def prepare(self, module: Attention) -> PreparedCall:
        """Copy fresh inputs into the recording's memory and give the replay.

        Raises:
            UnsupportedError: decoding, whose state has a new shape at every token.
        """
        if self.phase == "decode":
            raise UnsupportedError("decoding is not recorded: its cache grows at every token")
        fresh = super().prepare(module).inputs()
        recording = self._recorded.get(id(module))
        if recording is None:
            recording = self._recorded[id(module)] = _record(module, fresh, self.phase)
        return recording.with_inputs(fresh)


@dataclass
class _Recording:
    graph: torch.cuda.CUDAGraph
    inputs: Inputs
    out: Tensor
    gradients: list[Tensor | None]

    def with_inputs(self, fresh: Inputs) -> PreparedCall:
        """A replay on these numbers."""
        with torch.no_grad():
            for own, new in zip(_tensors(self.inputs), _tensors(fresh), strict=True):
                own.copy_(new)

        def replay() -> Tensor:
            self.graph.replay()
            return self.out

        def inputs() -> Inputs:
            for leaf, gradient in zip((fresh.q, fresh.k, fresh.v), self.gradients, strict=False):
                leaf.grad = None if gradient is None else gradient.clone()
            return fresh

        return PreparedCall(replay, inputs)


def _record(module: Attention, inputs: Inputs, phase: str) -> _Recording:
    """Record a call after it has run a few times in a stream of its own, as torch asks for."""
    leaves = [inputs.q, inputs.k, inputs.v]
    backward = phase == "forward_backward"

    def call() -> tuple[Tensor, list[Tensor | None]]:
        if not backward:
            with torch.no_grad():
                return module(inputs.q, inputs.k, inputs.v, inputs.context), []
        out = module(inputs.q, inputs.k, inputs.v, inputs.context)
        if not out.requires_grad:
            return out, [None, None, None]
        parameters = [p for p in module.parameters() if p.requires_grad]
        found = torch.autograd.grad(out, [*leaves, *parameters], inputs.gradient, allow_unused=True)
        return out.detach(), list(found[:3])

    _in_side_stream(lambda: [call() for _ in range(_WARM_UP)])
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out, gradients = call()
    return _Recording(graph, inputs, out, gradients)


def _in_side_stream(work: Callable[[], object]) -> None:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        work()
    torch.cuda.current_stream().wait_stream(stream)


def _tensors(inputs: Inputs) -> list[Tensor]:
    c = inputs.context
    candidates = (inputs.q, inputs.k, inputs.v, c.query_input, c.key_input, inputs.gradient)
    return [x for x in candidates if x is not None]
