"""The guard of a quality cell: the model that is measured keeps the contract on its own data.

No finite check of a mechanism by itself can know the lengths, numbers, dtype and parameters of a
task's trained model. So every cell checks the mechanism where it stands, as it was built and as it
was trained, in train and in eval mode, with the task's batches and under its precision:

* **slots**: calls that the slots really had, in a training step and in the evaluation of the test
  split, are made again with later tokens changed and cut off, with other rows and alone, and are
  compared with what the mechanism's own reference says (`runners.guard.slots`). Calls are drawn
  from all those of the test evaluation while it runs, so the outputs that are held to account are
  the ones that the scores came from: who behaves only when watched has been measured behaving;
* **the whole model**: predictions of a batch do not change when its later part is changed or cut
  off (`runners.guard.model`), and the first rows go through every slot as before when the last
  ones are other rows. A leak that goes past the slots' outputs shows here;
* **parameters**: nothing learns beside what is counted (`runners.guard.parameters`).

Calls, places and rows are drawn anew in every run, so nothing can be tuned to them; outcomes of
honest mechanisms do not hang on them. What is left to a cheat is to remember a prefix of its input
and to answer from memory when the same prefix comes again, or to change the guard itself: a process
cannot judge itself against such will. `cab results audit` measures again elsewhere.

The guard leaves no trace: parameters, buffers, modes and random state are put back.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from cab import Attention, Batch, Task, seeds
from cab.task_contract import Split
from runners.guard.calls import SlotCall, watched
from runners.guard.comparison import REPEATED, deviation
from runners.guard.model import check_predictions
from runners.guard.parameters import parameter_count, require_count, require_registered
from runners.guard.slots import check_call
from runners.guard.state import undisturbed
from runners.outcome import InvalidError
from runners.training import autocast, to_device

_TRIED = 8
"""Calls of a slot after which the built model's evaluation ends, however short they are"""

_CALLS = 3
"""Drawn in all from a test evaluation, and one of each slot at least"""


def guard_built(task: Task, model: nn.Module, candidates: Sequence[Attention], seed: int) -> None:
    """Check a model before it is trained.

    Args:
        task: whose batches are used, as it trains and evaluates.
        model: on its device.
        candidates: its slots that hold the candidate.
        seed: of the cell.

    Raises:
        InvalidError: the candidate breaks the contract here; says how, where and by how much.
        DivergedError: an output is not finite.
    """
    if not candidates:
        return
    order = random.SystemRandom()
    with undisturbed(model, _device(model)):
        require_registered(candidates)
        counted = parameter_count(candidates)
        calls = _first_calls(task, model, candidates, "test", seed, order)
        _check(task, model, candidates, calls, order, "built")
        require_count(candidates, counted)
        require_registered(candidates)


def guard_trained(
    task: Task,
    model: nn.Module,
    candidates: Sequence[Attention],
    calls: Sequence[SlotCall],
    counted: int,
) -> None:
    """Check the model that was tested.

    Args:
        task: see `guard_built`.
        model: as it was tested.
        candidates: see `guard_built`.
        calls: what `watching` has drawn while it was tested.
        counted: parameters of all slots before training.

    Raises:
        InvalidError: see `guard_built`.
        DivergedError: likewise.
    """
    if not candidates:
        return
    with undisturbed(model, _device(model)):
        require_count(candidates, counted)
        require_registered(candidates)
        _check(task, model, candidates, calls, random.SystemRandom(), "trained")


@contextlib.contextmanager
def watching(candidates: Sequence[Attention]) -> Iterator[list[SlotCall]]:
    """Draw calls of the slots while the block evaluates a model; for `guard_trained`."""
    with watched(candidates, _each(candidates), random.SystemRandom()) as calls:
        yield calls


def _check(
    task: Task,
    model: nn.Module,
    candidates: Sequence[Attention],
    calls: Sequence[SlotCall],
    order: random.Random,
    when: str,
) -> None:
    device = _device(model)
    generator = seeds.generator(order.getrandbits(32), "guard")
    batch = to_device(task.training_batch(generator), device)
    for call in calls:
        check_call(call, order, when)
    # What a step in train mode moves on - a running mean, directions drawn anew - is not what the
    # evaluation had; so it comes after, and is put back.
    with undisturbed(model, device):
        model.train()
        with watched(candidates, 1, order) as trained:
            _loss(task, model, batch, gradient=True)
        for call in trained:
            check_call(call, order, when)
    model.eval()
    _check_half_rows(task, model, candidates, batch, when)
    for training in (False, True):
        check_predictions(task, model, candidates, batch, order, when, training=training)


def _check_half_rows(
    task: Task, model: nn.Module, candidates: Sequence[Attention], batch: Batch, when: str
) -> None:
    """One half of a batch goes through the slots as before when the other half is a copy of it."""
    count = max(len(x) for x in batch.values() if x.dim())
    half = count // 2
    if not half:
        return
    before = _first_of_each(task, model, candidates, batch)
    index = torch.arange(count, device=_device(model))
    stays = index < count - half
    copied = torch.where(stays, index, index - (count - half))
    try:
        after = _first_of_each(task, model, candidates, _chosen(batch, copied, count))
    except (IndexError, RuntimeError, ValueError):
        # The other half has the longest row, without which a padded batch does not fit together.
        stays = index >= half
        copied = torch.where(stays, index, index + (count - half))
        after = _first_of_each(task, model, candidates, _chosen(batch, copied, count))
    for module in candidates:
        if id(module) not in before or id(module) not in after:
            continue
        one, two = before[id(module)], after[id(module)]
        if len(one.q) != count or one.out.shape != two.out.shape:
            continue
        found = deviation(one.out, two.out, stays[:, None, None])
        if not found.size <= REPEATED[one.dtype]:
            row, head, token = found.place
            raise InvalidError(
                f"the {when} model as a whole, eval mode: other rows of the batch change an output "
                f"of layer {module.spec.layer_index}: by {found.size:.1e} of its size (at most "
                f"{REPEATED[one.dtype]:.0e}) at row {row} of {count}, head {head}, token {token}"
            )


def _chosen(batch: Batch, index: torch.Tensor, count: int) -> Batch:
    return {n: x[index] if x.dim() and len(x) == count else x for n, x in batch.items()}


def _first_of_each(
    task: Task, model: nn.Module, candidates: Sequence[Attention], batch: Batch
) -> dict[int, SlotCall]:
    """The first call of every slot while the loss of a batch is computed, by the slot's id."""
    with watched(candidates, 1, _First()) as calls:
        _loss(task, model, batch, gradient=False)
    return {id(call.module): call for call in calls}


def _loss(task: Task, model: nn.Module, batch: Batch, *, gradient: bool) -> None:
    torch.manual_seed(seeds.derive(0, "guard", "loss"))
    with torch.set_grad_enabled(gradient), autocast(_device(model), task.recipe):
        task.loss(model, batch)


class _Enough(BaseException):
    """Every slot has been called: no error, it ends an evaluation early."""


def _first_calls(
    task: Task,
    model: nn.Module,
    candidates: Sequence[Attention],
    split: Split,
    seed: int,
    order: random.Random,
) -> list[SlotCall]:
    """Of every slot, a call from the evaluation of a split, which ends early: when all have had one
    that is not much shorter than the longest, or some more of any length.
    """
    waiting = {id(module): _TRIED for module in candidates}
    long = task.length()[0] / 2

    def note(module: nn.Module, _: object, out: torch.Tensor) -> None:
        left = waiting.pop(id(module), 0) - 1
        if left > 0 and out.shape[-2] < long:
            waiting[id(module)] = left
        if not waiting:
            raise _Enough

    model.eval()
    drawing = task.evaluation_seed(seed)
    torch.manual_seed(seeds.derive(drawing, "evaluation", split))
    with watched(candidates, 1, order) as calls:
        handles = [module.register_forward_hook(note) for module in candidates]
        try:
            with torch.no_grad(), autocast(_device(model), task.recipe):
                task.evaluate(model, split, drawing)
        except _Enough:
            pass
        finally:
            for handle in handles:
                handle.remove()
    return calls


class _First(random.Random):
    """A draw that always takes the first."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 1.0

    def random(self) -> float:
        """Less at every call."""
        self._next /= 2
        return self._next


def _each(candidates: Sequence[Attention]) -> int:
    return max(1, _CALLS // len(candidates))


def _device(model: nn.Module) -> torch.device:
    tensors = (*model.parameters(), *model.buffers())
    return tensors[0].device if tensors else torch.device("cpu")
