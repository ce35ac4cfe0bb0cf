"""The task contract: data, a backbone with attention slots, a recipe and metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from cab.artifact import Artifact
from cab.attention_contract import Attention, AttentionSpec, build_attention
from cab.errors import DataError, UsageError
from cab.info import OptionValue, Scale, TaskInfo
from cab.patterns import Pattern

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


class Slots:
    """Builds the attention modules of a backbone: the candidate in slots of the run's pattern.

    Every other slot gets softmax. Modules are built under a random state of their own, so the
    backbone's shared weights are the same for every candidate of one seed.
    """

    def __init__(
        self,
        pattern: Pattern,
        candidate: type[Attention],
        softmax: type[Attention],
        options: Mapping[str, OptionValue] | None = None,
        seed: int = 0,
    ) -> None:
        self.pattern = pattern
        self.candidates: list[Attention] = []
        """The candidate modules built so far."""
        self._candidate = candidate
        self._softmax = softmax
        self._options = dict(options or {})
        self._seed = seed
        self._built = 0

    def __call__(
        self,
        pattern: Pattern,
        *,
        heads: int,
        head_dim: int,
        layer_index: int = 0,
        layers: int = 1,
        max_length: int = 4096,
        embed_dim: int | None = None,
        value_dim: int = 0,
    ) -> Attention:
        """The module for one slot; the arguments are those of `AttentionSpec`."""
        spec = AttentionSpec(
            pattern, heads, head_dim, layer_index, layers, max_length, embed_dim, value_dim
        )
        self._built += 1
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(hash((self._seed, self._built)) & 0x7FFFFFFF)
            if pattern != self.pattern:
                return build_attention(self._softmax, spec)
            module = build_attention(self._candidate, spec, self._options)
        self.candidates.append(module)
        return module


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
            UsageError: the task has no slot of that pattern, or no such scale.
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

        ``seed`` matters only where evaluation draws data (generated problems).
        """

    def references(self, seed: int) -> dict[str, float]:
        """Values on the test split of the references that the info record declares, by name; one
        that has no meaning for this pattern is left out.

        ``seed`` matters only where evaluation draws data (generated problems).
        """
        return {}

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """A few small samples of what the trained model makes of test data, to be looked at.

        The caller has set eval mode and no_grad. They are made for the first seed of a run.
        """
        return []

    def length(self) -> tuple[int, int]:
        """Longest (queries, keys) that the candidate's slots see."""
        raise NotImplementedError
