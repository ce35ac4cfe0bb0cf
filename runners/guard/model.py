"""The same questions, put to the whole model: embeddings, slots and heads together.

What slots pass on beside their outputs (a number kept from one layer for the next, a look at the
batch in a caller's variables, a hook on the readout) shows here alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cab import Attention, Batch, Task
from runners.guard.changes import swapped
from runners.guard.comparison import LAYERS, REPEATED, RESHAPED, deviation
from runners.guard.slots import cuts
from runners.guard.state import undisturbed
from runners.outcome import InvalidError
from runners.training import autocast

_SHORTEST = 2
"""Tokens that are left at least: a teacher-forced decoder reads all but the last."""


def check_predictions(
    task: Task,
    model: nn.Module,
    candidates: Sequence[Attention],
    batch: Batch,
    order: random.Random,
    when: str,
    *,
    training: bool,
) -> None:
    """What the model says at a place does not hang on the batch's sequence from a later one on.

    Args:
        task: tells the sequence and the predictions, see `cab.Task.causal_inputs`.
        model: as it was built or trained.
        candidates: its slots; with ``training`` they are in train mode and record a graph, and the
            rest of the model is in eval mode, so that no dropout differs.
        batch: on the model's device.
        order: for the places that are looked at.
        when: of which model, for the message.
        training: see ``candidates``.

    Raises:
        InvalidError: it does; names the place and the size.
    """
    names = task.causal_inputs()
    if not task.pattern.causal or not names:
        return
    model.eval()
    for module in candidates:
        module.train(training)
    mode = "train" if training else "eval"
    where = f"the {when} model as a whole, {task.pattern}, {mode} mode"
    said = _predictions(task, model, batch, training)
    dtype = _coarsest(task, said)
    count, length = batch[names[0]].shape[:2]
    if length <= _SHORTEST:
        return
    places = torch.arange(said.shape[1], device=said.device)
    for _ in range(2 if training else 1):
        # In train mode rows may be tied to each other, so there all change from one place on.
        chosen = [t + 1 for t in cuts(length - 1, order, 1 if training else count)]
        after = torch.tensor(chosen * (count if training else 1), device=said.device)
        later = torch.arange(length, device=said.device) >= after[:, None]
        changed = {**batch, **{name: swapped(batch[name], later, 1) for name in names}}
        got = _predictions(task, model, changed, training)
        before = places < after[:, None]
        complaint = f"{where}: changing later inputs changes a prediction"
        _hold(said, got, before, LAYERS * REPEATED[dtype], complaint, after)
    if training and not torch.equal(said, _predictions(task, model, batch, training, seed=1)):
        return  # slots that draw numbers draw others for another shape
    end = 1 + cuts(length - 1, order, 1)[0]
    short = {**batch, **{name: batch[name][:, :end] for name in names}}
    got = _predictions(task, model, short, training)
    left = min(got.shape[1], end)
    complaint = f"{where}: cutting inputs off from {end} of {length} on changes a prediction"
    every = torch.ones(count, left, dtype=torch.bool, device=said.device)
    _hold(said[:, :left], got[:, :left], every, LAYERS * RESHAPED[dtype], complaint)


def _predictions(
    task: Task, model: nn.Module, batch: Batch, training: bool, seed: int = 0
) -> Tensor:
    """(B, T, C)"""
    device = next(iter(batch.values())).device
    with (
        undisturbed(model, device),
        torch.set_grad_enabled(training),
        autocast(device, task.recipe),
    ):
        torch.manual_seed(seed)
        said = task.causal_outputs(model, batch)
    return said.detach().flatten(2)


def _coarsest(task: Task, said: Tensor) -> torch.dtype:
    return torch.bfloat16 if task.recipe.precision == "bfloat16" else said.dtype


def _hold(
    want: Tensor,
    got: Tensor,
    counted: Tensor,
    bar: float,
    complaint: str,
    after: Tensor | None = None,
) -> None:
    if want.shape != got.shape:
        raise InvalidError(f"{complaint}: shapes {tuple(want.shape)} and {tuple(got.shape)}")
    found = deviation(want, got, counted)
    if not found.size <= bar:
        row, place = found.place
        since = "" if after is None else f", with inputs from {int(after[row])} on changed"
        raise InvalidError(
            f"{complaint}: by {found.size:.1e} of its size (at most {bar:.0e}) at row {row}, place "
            f"{place}{since}"
        )
