"""A fixed text that goes through a model before the tokens do."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attentions.shared.query_sources import Place
from attentions.shared.second_pass import SecondPass
from attentions.shared.second_stream import needs_more
from cab import Task, seeds


class _EnoughError(Exception):
    """All that the second pass is for has been made."""


class FixedText(SecondPass):
    """Goes through the model in every forward pass, with gradients, as far as the last layer that
    takes something of it.
    """

    def __init__(self, model: nn.Module, taking: Sequence[Place], task: Task) -> None:
        """Hook into a model.

        Args:
            model: that is called with ids (B, L).
            taking: slots that get q and k of the text.
            task: whose training data has the text.

        Raises:
            NotImplementedError: the model is called with something else.
        """
        self._text = _ids(model, task)
        super().__init__(taking)
        model.register_forward_pre_hook(self._before)

    def _before(self, model: nn.Module, args: tuple[Any, ...]) -> None:
        if self.running:
            return
        ids: Tensor = args[0]
        length = ids.shape[1]
        if length > len(self._text):
            raise NotImplementedError(f"the fixed text has {len(self._text)} tokens, not {length}")
        with self.second(), contextlib.suppress(_EnoughError):
            model(self._text[None, :length].to(ids.device))

    def reached(self) -> None:
        """The rest of the model has no part in it: a norm over the batch would not take one row."""
        if not self.waiting:
            raise _EnoughError


def _ids(model: nn.Module, task: Task) -> Tensor:
    """The ids that a model is called with for one fixed batch of training data, row after row."""
    if needs_more(model):
        raise NotImplementedError("decon-fixedseq-qk needs a model of the ids of one sequence")
    batch = task.training_batch(seeds.generator(0, "statistics", "fixed text"))
    device = next(model.parameters()).device
    found: list[Tensor] = []

    def note(_: nn.Module, args: tuple[Any, ...]) -> None:
        ids = args[0] if args else None
        if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.dtype != torch.long:
            raise NotImplementedError("decon-fixedseq-qk needs a model that is called with ids")
        found.append(ids)

    handle, training = model.register_forward_pre_hook(note), model.training
    try:
        # Nothing of this call is kept but the ids: in train mode it would draw, and change buffers.
        with torch.no_grad():
            task.loss(model.eval(), {name: value.to(device) for name, value in batch.items()})
    finally:
        handle.remove()
        model.train(training)
    if not found:
        raise NotImplementedError("decon-fixedseq-qk needs a model that is called")
    return found[0].flatten().cpu()
