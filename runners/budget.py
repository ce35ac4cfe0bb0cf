"""How much of the parameter budget a mechanism takes, task by task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cab.attention_contract import Attention
from cab.controls import BASELINE
from cab.info import OptionValue, Scale
from cab.patterns import Pattern
from cab.registries import ATTENTIONS, TASKS
from runners.experiment import Experiment
from runners.outcome import UnsupportedError


@dataclass(frozen=True)
class Share:
    """What a mechanism adds to the backbone of a task."""

    task: str
    budget: float
    """Allowed share of the backbone's parameters"""
    added: int
    """Parameters of the mechanism, all layers; 0 where it is over the budget"""
    backbone: int
    """Parameters without it; 0 where it is over the budget"""
    over: str = ""
    """Where it is over the budget: by how much, in words"""

    @property
    def share(self) -> float:
        """Of the backbone; infinite where it is over the budget."""
        return float("inf") if self.over else self.added / self.backbone


def budget_shares(
    cls: type[Attention], pattern: Pattern, options: Mapping[str, OptionValue], scale: Scale
) -> list[Share]:
    """The share on every task with slots of a pattern that has a budget and is no probe; every
    model is built, none is trained.
    """
    softmax = ATTENTIONS.load(ATTENTIONS.resolve(BASELINE))
    shares = []
    for entry in TASKS.entries().values():
        info = entry.info
        if info.probe or pattern not in info.backbones or scale not in info.scales:
            continue
        task = TASKS.load(entry)(pattern, scale, None)
        if task.parameter_budget is None:
            continue
        built = Experiment(task, pattern, cls, softmax, options, 0, "cpu")
        try:
            built.build()
        except UnsupportedError as error:
            shares.append(Share(entry.id, task.parameter_budget, 0, 0, str(error)))
            continue
        added = built.parameters_added
        backbone = built.parameters_total - added
        shares.append(Share(entry.id, task.parameter_budget, added, backbone))
    return shares
