"""The density that a trained sparse mechanism really has, on validation data.

What a mechanism with `cab.density.ReadsShare` reads may depend on its inputs, and on lengths that
its options do not know. So it is asked in the trained model, on the problems of the validation
split, and not computed from options.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from torch import nn

from cab import Attention, Task
from cab.density import ReadsShare, densities
from runners.training import evaluate

CALLS = 4
"""Calls of a slot that are looked at: batches, in a task whose model runs once for each"""


class _Enough(BaseException):
    """No error: it ends an evaluation early. Not an `Exception`, which a task may catch."""


def validation_density(
    task: Task, model: nn.Module, candidates: Sequence[Attention], seed: int
) -> float | None:
    """Share of the visible pairs that the slots read: mean over heads, sequences, calls and slots.

    Args:
        task: with its data.
        model: trained; left in eval mode.
        candidates: the slots.
        seed: of the run.

    Returns:
        None where no slot says what it reads, or none is called.
    """
    asked = [module for module in candidates if isinstance(module, ReadsShare)]
    if not asked:
        return None
    with densities(model) as found, suppress(_Enough), _at_most(CALLS, asked):
        evaluate(task, model, "validation", seed, task.recipe)
    return found.mean()


@contextmanager
def _at_most(calls: int, modules: Sequence[nn.Module]) -> Iterator[None]:
    """Raise `_Enough` when one of the modules is about to be called once more than so often."""
    counted: Counter[int] = Counter()

    def count(module: nn.Module, _: object) -> None:
        counted[id(module)] += 1
        if counted[id(module)] > calls:
            raise _Enough

    handles = [module.register_forward_pre_hook(count) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
