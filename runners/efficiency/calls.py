"""The calls that are timed: a mechanism on fresh random inputs, forward or forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cab import Attention, AttentionContext
from runners.efficiency.settings import EfficiencySettings

Prepared = Callable[[], Tensor]
"""A call with its inputs already made; returns the output, so that nothing lazy stays undone."""

PHASES = ("forward", "forward_backward")


@dataclass
class CallFactory:
    """Makes calls of one length; every call gets inputs that no earlier call has seen."""

    settings: EfficiencySettings
    length: int
    phase: str
    device: torch.device
    generator: torch.Generator

    def prepare(self, module: Attention) -> Prepared:
        """Draw inputs and give the call on them."""
        training = self.phase == "forward_backward"
        q, k, v = (self._draw().requires_grad_(training) for _ in range(3))
        context = AttentionContext()
        if module.spec.embed_dim is not None:
            width = module.spec.embed_dim
            inputs = self._draw_shape(self.settings.batch, self.length, width)
            source = inputs
            if module.pattern.cross:
                source = self._draw_shape(self.settings.batch, self.length, width)
            context = AttentionContext(query_input=inputs, key_input=source)
        if not training:

            def forward() -> Tensor:
                with torch.no_grad():
                    return module(q, k, v, context)

            return forward
        gradient = self._draw()

        def forward_backward() -> Tensor:
            out = module(q, k, v, context)
            if out.requires_grad:
                out.backward(gradient)
            for parameter in module.parameters():
                parameter.grad = None
            return out.detach()

        return forward_backward

    def _draw(self) -> Tensor:
        s = self.settings
        return self._draw_shape(s.batch, s.heads, self.length, s.head_dim)

    def _draw_shape(self, *shape: int) -> Tensor:
        values = torch.randn(*shape, generator=self.generator, device=self.generator.device)
        return values.to(self.device, self.settings.dtype)
