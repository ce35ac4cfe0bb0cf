"""Evaluation of the untrained model, at the price of a few forward passes.

A whole evaluation would cost a good share of a cell. What the witness needs of it is which data it
looks at and what it makes of outputs; so the model really runs on the first input of every shape
alone, and answers with that output whenever the shape comes again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from cab import Task
from cab.task_contract import Split
from runners.training import evaluate
from runners.witness.digest import Digest
from runners.witness.record import finite_or_none

_SPLITS: tuple[Split, ...] = ("validation", "test")


def untrained_metrics(
    task: Task, model: nn.Module, seed: int
) -> tuple[dict[str, float | None], str]:
    """Metrics by ``split/name``, and a digest of everything that the model was fed.

    An untrained model may make what a metric cannot take; that then is what it shows.
    """
    found: dict[str, float | None] = {}
    seen = Digest()
    for split in _SPLITS:
        with repeated(model, seen):
            try:
                scores = evaluate(task, model, split, seed, task.recipe)
            except (ArithmeticError, IndexError, RuntimeError, ValueError) as error:
                seen.text(type(error).__name__)
                found[f"{split}/failed"] = None
                continue
        found |= {f"{split}/{name}": v for name, v in finite_or_none(scores).items()}
    return found, seen.value()


@contextlib.contextmanager
def repeated(model: nn.Module, seen: Digest) -> Iterator[None]:
    """Within it, the model runs once for every shape of its inputs and repeats what came out."""
    answers: dict[str, Any] = {}
    forward = model.forward

    def answer(*args: Any, **named: Any) -> Any:
        signature = Digest()
        _note(signature, (args, named), content=False)
        _note(seen, (args, named), content=True)
        key = signature.value()
        if key not in answers:
            answers[key] = forward(*args, **named)
        return _copy(answers[key])

    model.forward = answer
    try:
        yield
    finally:
        del model.forward


def _note(digest: Digest, value: Any, content: bool) -> None:
    if isinstance(value, Tensor):
        if content:
            digest.tensor(value)
        else:
            digest.text(f"{value.dtype} {tuple(value.shape)}")
    elif isinstance(value, dict):
        for name in sorted(value, key=str):
            digest.text(str(name))
            _note(digest, value[name], content)
    elif isinstance(value, list | tuple):
        digest.text(f"{len(value)}")
        for item in value:
            _note(digest, item, content)
    elif isinstance(value, bool | int | float | str | None):
        digest.text(repr(value))
    else:
        digest.text(type(value).__name__)


def _copy(value: Any) -> Any:
    """Of tensors, which a metric may change in place."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {name: _copy(item) for name, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_copy(item) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(_copy(item) for item in value)
    return value
