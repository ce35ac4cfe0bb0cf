"""Training-free modifications: off while a model is trained, then turned on where they help."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from cab import Attention, Task
from runners.training import better, evaluate


def switch_off(candidates: Sequence[Attention]) -> None:
    """Every head of every candidate as it is without its modification."""
    for module in candidates:
        switches = module.switches()
        if switches is not None:
            switches.fill_(False)


def switch_on(
    task: Task, model: nn.Module, candidates: Sequence[Attention], seed: int
) -> dict[str, float] | None:
    """Turn modifications on in a trained model.

    Those that calibrate act in the heads that improve the first metric on the validation split
    when they alone are turned on (as Attention Calibration does it, arXiv 2406.15765), the others
    in all heads.

    Returns:
        the validation scores with what was turned on; None where there is nothing to turn on.
    """
    found = [(module, switches) for module in candidates
             if (switches := module.switches()) is not None]  # fmt: skip
    if not found:
        return None
    for module, switches in found:
        if not module.calibrates:
            switches.fill_(True)
    chosen = _helpful(task, model, [switches for m, switches in found if m.calibrates], seed)
    for switches, heads in chosen:
        switches[heads] = True
    return evaluate(task, model, "validation", seed, task.recipe)


def _helpful(
    task: Task, model: nn.Module, every: Sequence[Tensor], seed: int
) -> list[tuple[Tensor, list[int]]]:
    """The heads of each module that improve the validation score on their own."""
    if not every:
        return []
    metric = task.info.metrics[0]
    without = evaluate(task, model, "validation", seed, task.recipe)
    chosen = []
    for switches in every:
        heads = []
        for head in range(len(switches)):
            switches[head] = True
            scores = evaluate(task, model, "validation", seed, task.recipe)
            switches[head] = False
            if better(scores, without, metric.name, metric.higher_is_better):
                heads.append(head)
        chosen.append((switches, heads))
    return chosen
