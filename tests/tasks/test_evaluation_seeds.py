"""What every task is evaluated on: by which seed it is drawn, and that nobody was trained on it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from attentions.softmax import SoftmaxAttention
from cab import GeneratedTask, Pattern, Scale, Slots, Task, seeds
from cab.errors import UsageError
from cab.registries import TASKS

ENTRIES = TASKS.entries()
GENERATED = [name for name, entry in ENTRIES.items() if entry.info.dataset == "generated"]

CALLS = 4
"""Of a slot or a model, after which an evaluation has shown enough"""

PLACES = 16
"""Of a sequence, by which two problems are told apart"""


def make(name: str, scale: Scale = Scale.TINY, pattern: Pattern | None = None) -> Task:
    entry = ENTRIES[name]
    task: Task = TASKS.load(entry)(pattern or entry.info.patterns[0], scale)
    return task


def built(task: Task) -> tuple[nn.Module, Slots]:
    torch.manual_seed(0)
    slots = Slots(task.pattern, SoftmaxAttention, SoftmaxAttention)
    return task.build(slots).eval(), slots


class EnoughSeenError(Exception):
    """Ends an evaluation early."""


def seen_by(module: nn.Module, run: Callable[[], object], calls: int = CALLS) -> list[Tensor]:
    """The first tensor of each of a module's first calls."""
    seen: list[Tensor] = []

    def keep(_: nn.Module, given: tuple[object, ...], named: dict[str, object]) -> None:
        seen.append(_first_tensor([*given, *named.values()]).clone())
        if len(seen) == calls:
            raise EnoughSeenError

    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with torch.no_grad():
            run()
    except EnoughSeenError:
        pass
    finally:
        handle.remove()
    assert seen, "nothing was asked"
    return seen


def _first_tensor(given: list[object]) -> Tensor:
    for value in given:
        if isinstance(value, dict):
            value = next(iter(value.values()))
        if isinstance(value, Tensor):
            return value
    raise AssertionError("a call without a tensor")


def alike(one: list[Tensor], two: list[Tensor]) -> bool:
    return len(one) == len(two) and all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("name", ENTRIES)
def test_runs_of_all_seeds_are_tested_on_the_same_unless_the_record_says_so(name: str) -> None:
    task = make(name)
    model, slots = built(task)
    found = []
    for run in (1, 1, 2):
        torch.manual_seed(len(found))  # the global generator has no say
        found.append(
            seen_by(
                slots.candidates[0],
                lambda run=run: task.evaluate(model, "validation", task.evaluation_seed(run)),
            )
        )
    assert alike(found[0], found[1])
    assert alike(found[0], found[2]) != task.info.fresh_evaluation


@pytest.mark.parametrize("name", GENERATED)
def test_no_problem_is_trained_on_and_tested(name: str) -> None:
    """Nor validated and tested; at scale small, where problems are too many to meet by chance."""
    task = make(name, Scale.SMALL)
    model, _ = built(task)

    def problems(run: Callable[[], object]) -> set[bytes]:
        rows = [row for given in seen_by(model, run) for row in given.flatten(1)[:, :PLACES]]
        return {row.numpy().tobytes() for row in rows}

    validated, tested = (
        problems(lambda split=split: task.evaluate(model, split, 0))
        for split in ("validation", "test")
    )
    assert validated.isdisjoint(tested)
    draws = seeds.generator(0, "data")
    for _ in range(CALLS):
        trained = problems(lambda: task.loss(model, task.training_batch(draws)))
        assert trained.isdisjoint(validated | tested)


@pytest.mark.parametrize("name", GENERATED)
def test_generated_tasks_hash_their_settings_and_read_no_folder(name: str, tmp_path) -> None:
    scales = ENTRIES[name].info.scales
    tasks = [make(name, scale) for scale in scales]
    assert all(isinstance(task, GeneratedTask) for task in tasks)
    assert len({task.data_hash for task in tasks}) == len(scales)
    with pytest.raises(UsageError, match="generates its problems; it reads no data folder"):
        type(tasks[0])(tasks[0].pattern, Scale.TINY, tmp_path)
