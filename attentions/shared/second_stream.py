"""A sequence of random embeddings that goes through a stack of layers beside the tokens."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attentions.shared.query_sources import Place
from attentions.shared.second_pass import SecondPass

_BLOCK = 64
"""Places whose embeddings are drawn together: those of a place do not hang on the length"""


def random_embeddings(length: int, width: int) -> Tensor:
    """(L, E) standard normal numbers, the same in every call and for every length."""
    blocks = []
    for block in range(-(-length // _BLOCK)):
        generator = torch.Generator().manual_seed(block)
        blocks.append(torch.randn(_BLOCK, width, generator=generator))
    return torch.cat(blocks)[:length] if blocks else torch.empty(0, width)


class SecondStream(SecondPass):
    """Goes through each layer before the tokens do."""

    def __init__(self, model: nn.Module, stack: Sequence[Place], taking: Sequence[Place]) -> None:
        """Hook into a stack.

        Args:
            model: that holds it.
            stack: its slots, from the first layer on.
            taking: slots that get q and k of the second stream.

        Raises:
            NotImplementedError: see `layer_of`; or another mechanism of the stack is wired as well.
        """
        others = {type(place.slot) for place in stack} - {type(place.slot) for place in taking}
        if any(hasattr(other, "wire") for other in others):
            # It would mix what it keeps of the tokens' pass with the second one.
            raise NotImplementedError("decon-rnd-qk stands beside none that is wired into a model")
        layers = [layer_of(model, place) for place in stack]
        super().__init__(taking)
        self._state: Tensor | None = None
        """(1, L, E) what the next layer is to be given"""
        self._tokens: Tensor | None = None
        """What the last layer has given"""
        for index, layer in enumerate(layers):
            self._follow(layer, first=index == 0)

    def _follow(self, layer: nn.Module, first: bool) -> None:
        def before(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            if self.running:
                return
            x = args[0]
            if first:
                self._state = random_embeddings(x.shape[1], x.shape[2]).to(x)[None]
            elif x is not self._tokens or self._state is None:
                raise NotImplementedError("decon-rnd-qk needs layers with nothing between them")
            with self.second():
                self._state = module(self._state, **_kept(named))

        def after(_: nn.Module, __: tuple[Any, ...], out: Tensor) -> None:
            if not self.running:
                self._tokens = out

        layer.register_forward_pre_hook(before, with_kwargs=True)
        layer.register_forward_hook(after)


def layer_of(model: nn.Module, place: Place) -> nn.Module:
    """The layer that holds a slot: the innermost entry of a list of modules that does.

    Raises:
        NotImplementedError: there is none, or it needs more than its tokens.
    """
    holding = [
        layer
        for modules in model.modules()
        if isinstance(modules, nn.ModuleList)
        for layer in modules
        if layer is not place.holder and any(part is place.holder for part in layer.modules())
    ]
    if not holding:
        raise NotImplementedError("decon-rnd-qk needs layers that are modules of a list")
    layer = holding[-1]
    if needs_more(layer):
        raise NotImplementedError(
            f"decon-rnd-qk needs layers that need their tokens alone, not {type(layer).__name__}"
        )
    return layer


def needs_more(module: nn.Module) -> bool:
    """Whether a module must be called with more than one argument."""
    _, *further = inspect.signature(module.forward).parameters.values()
    return any(parameter.default is parameter.empty for parameter in further)


def _kept(named: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a layer that are not of certain rows of the batch: shapes of grids."""
    return {name: value for name, value in named.items() if isinstance(value, tuple)}
