"""The task contract: data, a backbone with attention slots, a recipe and metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from cab.analysis import Analysis, Evidence
from cab.artifact import Artifact
from cab.errors import DataError, UsageError
from cab.info import Scale, TaskInfo
from cab.patterns import Pattern
from cab.slots import Slots

Batch = Mapping[str, Tensor]
"""Named tensors of one batch; the runner moves them to the device."""

Split = Literal["validation", "test"]
Schedule = Literal["cosine", "linear", "inverse-sqrt", "constant"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Recipe:
    """How a backbone is trained. The same for every attention.

    AdamW with linear warm-up. The checkpoint with the best validation score (the first declared
    metric) of ``evaluations`` equally spaced ones is tested.
    """

    steps: int
    """Optimisation steps"""
    batch_size: int
    """Of `Task.training_batch`"""
    learning_rate: float
    """At its peak"""
    warmup_steps: int = 40
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    """Largest norm of the gradient"""
    schedule: Schedule = "cosine"
    """What follows the warm-up: a cosine or a straight line down to ``final_lr_fraction`` of the
    peak at the last step, the inverse square root of the step, or the peak itself"""
    final_lr_fraction: float = 0.05
    evaluations: int = 3
    accumulate: int = 1
    """Batches whose gradients make one step"""
    precision: Precision = "float32"
    """``bfloat16``: forward passes under autocast; weights and optimiser stay in float32"""
    averaging: float = 0.0
    """Decay of an exponential moving average of the weights, which is then what is evaluated; 0:
    none"""


class Task(ABC):
    """One data set, one backbone per pattern, one recipe per scale.

    A subclass is decorated with ``@register_task(TaskInfo(...))``. Constructing a task loads its
    data; it then serves one pattern at one scale.
    """

    info: ClassVar[TaskInfo]

    parameter_budget: ClassVar[float | None] = 0.10
    """Share of the backbone's parameters that a candidate may add (CAB's rule); None where the
    backbone has next to none of its own."""

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        """Load the data.

        Args:
            pattern: pattern whose slots take the candidate.
            scale: size of data, backbone and recipe.
            data_dir: folder with the original data; None: the embedded data.

        Raises:
            UsageError: the task has no slot of that pattern, or no such scale, or reads no original
                data.
            DataError: data missing, truncated or altered; says what the layout should be.
        """
        if pattern not in self.info.backbones:
            raise UsageError(
                f"task {self.info.id!r} has no {pattern} slot; it has "
                f"{', '.join(self.info.patterns)}"
            )
        if scale not in self.info.scales:
            raise UsageError(
                f"task {self.info.id!r} has no scale {scale}; it has {', '.join(self.info.scales)}"
            )
        if data_dir is not None and not self.info.data_dir:
            made = "generates its problems" if self.info.dataset == "generated" else "has its data"
            raise UsageError(f"task {self.info.id!r} {made}; it reads no data folder")
        self.pattern = pattern
        self.scale = scale
        self.data_dir = data_dir

    @classmethod
    def data_problems(cls, data_dir: Path) -> list[str]:
        """Everything in which a folder is not the task's original data; empty: nothing.

        This one stops at the first problem that loading at the largest scale meets.
        """
        largest = cls.info.scales[-1]
        try:
            cls(cls.info.patterns[0], largest, data_dir)
        except DataError as error:
            return [f"{error} (at scale {largest})"]
        return []

    @property
    def backbone(self) -> str:
        """Name of the backbone that carries this pattern's slots."""
        return self.info.backbones[self.pattern]

    @property
    def dataset(self) -> str:
        """Name of the data in use, for the result rows."""
        return self.info.dataset if self.data_dir is None else self.data_dir.name

    @property
    @abstractmethod
    def data_hash(self) -> str:
        """Content hash of the data in use (of the generator's settings for generated data)."""

    @property
    @abstractmethod
    def recipe(self) -> Recipe:
        """The training recipe at this scale."""

    @abstractmethod
    def build(self, slots: Slots) -> nn.Module:
        """The backbone, with the modules that ``slots`` gives in its attention slots.

        The caller has seeded torch; shared weights may use its global generator.
        """

    @abstractmethod
    def training_batch(self, generator: torch.Generator) -> Batch:
        """Draw one training batch; all randomness comes from ``generator`` (on the CPU)."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Training loss, a scalar."""

    @abstractmethod
    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """Every declared metric on a split; the caller has set eval mode and no_grad.

        Args:
            model: as `build` made it.
            split: validation or test.
            seed: of what evaluating draws, through `cab.seeds.evaluation`; see `evaluation_seed`.
        """

    def evaluation_seed(self, seed: int) -> int:
        """The seed of what a run's evaluations draw: one for all runs, so that they are tested on
        the same problems, or the run's own where the record says `cab.TaskInfo.fresh_evaluation`.

        Args:
            seed: of the run.
        """
        return seed if self.info.fresh_evaluation else 0

    def references(self, seed: int) -> dict[str, float]:
        """Values on the test split of the references that the info record declares, by name; one
        that has no meaning for this pattern is left out.

        Args:
            seed: as in `evaluate`; the problems are the same.
        """
        return {}

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """A few small samples of what the trained model makes of test data, to be looked at.

        The caller has set eval mode and no_grad. They are made for the first seed of a run.

        Args:
            model: as `build` made it.
            seed: as in `evaluate`; the problems are the same.
        """
        return []

    def evidence(self, batch: Batch) -> Evidence | None:
        """Where the answers of a batch stand, for the analysis of where slots look; None where
        there is no such place, or it is not known.
        """
        return None

    def analyses(self, model: nn.Module) -> Mapping[Analysis, float]:
        """Numbers of the task's own about a trained model, beside those that every model has
        (`runners.analysis`); one that is not a number is left out.

        The caller has set eval mode and no_grad.

        Args:
            model: as `build` made it.
        """
        return {}

    def causal_inputs(self) -> tuple[str, ...]:
        """In a causal pattern, the tensors of a batch that hold the sequence which the model goes
        along, (B, T, ...) each: their entries from place t on may not show in what is said at
        places before t. Empty where the model says nothing before the sequence's end.

        A cell checks it, on the built and the trained model; a task with causal slots that does not
        say it is checked slot by slot alone.
        """
        return ()

    def causal_outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """(B, T', ...) what the model says at the places of the sequence, teacher-forced.

        Place t is from entries before t, or up to t, of `causal_inputs`; T' may be one less than T
        where the last entry is only a target. The tensors may be cut to their first entries.
        """
        raise NotImplementedError

    def reduced(self) -> Task:
        """The task with a small, fixed part of its validation and test data to evaluate: what a
        witness looks at, which may take no more than a hundredth of a cell. Itself where evaluating
        everything takes no longer, given a model that answers at once.
        """
        return self

    def length(self) -> tuple[int, int]:
        """Longest (queries, keys) that the candidate's slots see."""
        raise NotImplementedError
