"""Algorithms on lists of numbers: min, sum, sort, median, max-subarray (Positional Attention).

One encoder reads a list and five linear readouts give the five functions of every prefix. Training
lists have up to n numbers in [-2, 2]; they are tested at n numbers, and out of distribution: with
values up to 2, 4 and 8 times as large, and with twice as many numbers.

Errors are normalised: the mean squared error of a function at a position by the variance of its
target there, averaged over positions and functions. So 1 is the best constant, 0 is exact, and
early positions count as late ones. Differences from Back de Luca et al.: one model for the five
functions instead of one each, lists of different lengths in one run, a residual in the layer, and
a short training; positions stay fixed, as theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cab import (
    Artifact,
    Batch,
    GeneratedTask,
    Metric,
    Pattern,
    Recipe,
    Reference,
    Scale,
    Slots,
    TaskInfo,
    register_task,
    seeds,
)
from cab.task_contract import Split
from tasks.algorithmic.functions import (
    FUNCTIONS,
    HALF_RANGE,
    draw_lists,
    linear_predictor,
    targets_of,
    with_one,
)
from tasks.algorithmic.model import ListTransformer
from tasks.artifacts import pictures
from tasks.evaluation import beside


@dataclass(frozen=True)
class _Setting:
    length: int
    """Numbers of the longest training list."""
    dim: int
    layers: int
    heads: int
    lists: Mapping[str, int]
    """Evaluated per condition, by split."""


_SETTINGS = {
    Scale.TINY: _Setting(8, 32, 2, 4, lists={"validation": 256, "test": 512}),
    Scale.SMALL: _Setting(16, 64, 3, 4, lists={"validation": 256, "test": 1024}),
    Scale.BASE: _Setting(32, 256, 6, 8, lists={"validation": 1024, "test": 4096}),
}

_RECIPES = {
    Scale.TINY: Recipe(steps=200, batch_size=32, learning_rate=3e-3, betas=(0.9, 0.99)),
    Scale.SMALL: Recipe(steps=1000, batch_size=64, learning_rate=2e-3, betas=(0.9, 0.99)),
    Scale.BASE: Recipe(
        steps=20_000,
        batch_size=256,
        learning_rate=5e-4,
        betas=(0.9, 0.99),
        warmup_steps=500,
        evaluations=10,
    ),
}

_SHORTEST = 2

_STATISTICS_DRAWS = 8192


class Condition(NamedTuple):
    """A distribution of lists that is evaluated."""

    length: int
    scale: float

    @property
    def name(self) -> str:
        """Of its streams of random numbers."""
        return f"{self.length} numbers, scale {self.scale:g}"


@register_task(
    TaskInfo(
        id="algorithmic",
        title="Algorithms on lists",
        description=(
            "Minimum, sum, sorted order, median and largest sum of a subarray of every prefix of "
            "a list of numbers in [-2, 2], 16 of them at scale small. Evaluated as well on values "
            "2, 4 and 8 times as large and on lists twice as long."
        ),
        backbones={Pattern.NONCAUSAL_SELF: "norm-free-encoder"},
        metrics=(
            Metric(
                "nmse",
                "1",
                higher_is_better=False,
                help="Squared error by the target's variance, mean over the five functions; the "
                "best constant scores 1.",
            ),
            *(
                Metric(
                    f"nmse_{name}",
                    "1",
                    higher_is_better=False,
                    help="Of this function alone.",
                    headline=False,
                )
                for name in ("min", "sum", "sort", "median", "max_subarray")
            ),
            *(
                Metric(
                    f"nmse_scale_{scale}",
                    "1",
                    higher_is_better=False,
                    help="Of the five, with values as many times as large as in training.",
                    headline=False,
                )
                for scale in (2, 4, 8)
            ),
            Metric(
                "nmse_length_2",
                "1",
                higher_is_better=False,
                help="Of the five, on lists twice as long as the longest in training.",
                headline=False,
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="generated",
        paper="Back de Luca et al., Positional Attention: Expressivity and Learnability of "
        "Algorithmic Computation",
        url="https://arxiv.org/abs/2410.01686",
        probe=True,
        references=(
            Reference(
                "best-constant",
                metric="nmse",
                help="The target's mean at each position.",
            ),
            Reference(
                "best-linear",
                metric="nmse",
                help="Least squares of the targets on the numbers of the list.",
            ),
            Reference(
                "best-linear-scale-8",
                metric="nmse_scale_8",
                help="The same predictor, fitted to training lists, on the largest values.",
            ),
        ),
    )
)
class Algorithmic(GeneratedTask):
    """Five functions of lists from one encoder."""

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        self.setting = _SETTINGS[scale]

    @property
    def problem_settings(self) -> object:
        """See `cab.GeneratedTask.problem_settings`."""
        return HALF_RANGE, self.setting.length, self.setting.lists, tuple(FUNCTIONS)

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return _RECIPES[self.scale]

    @property
    def conditions(self) -> dict[str, Condition]:
        """By metric: the distribution of training at its longest, and beyond."""
        longest = self.setting.length
        return {
            "nmse": Condition(longest, 1.0),
            **{f"nmse_scale_{s}": Condition(longest, float(s)) for s in (2, 4, 8)},
            "nmse_length_2": Condition(2 * longest, 1.0),
        }

    def length(self) -> tuple[int, int]:
        """See `cab.Task.length`; the longest lists are only evaluated."""
        return 2 * self.setting.length, 2 * self.setting.length

    @cached_property
    def _variances(self) -> dict[Condition, Tensor]:
        """(length, F) variance of every target, by condition; of training lists at every length."""
        training = [Condition(n, 1.0) for n in range(_SHORTEST, self.setting.length + 1)]
        return {
            condition: self.statistics_draw(condition)[1].var(0)
            for condition in (*training, *self.conditions.values())
        }

    @staticmethod
    def statistics_draw(condition: Condition) -> tuple[Tensor, Tensor]:
        """Lists (N, n) and targets (N, n, F) in float64 that are neither trained on nor tested."""
        generator = seeds.generator(0, "statistics", condition.name)
        with torch.device("cpu"):  # also where a backbone is built without memory
            lists = draw_lists(_STATISTICS_DRAWS, *condition, generator).double()
            return lists, targets_of(lists)

    def build(self, slots: Slots) -> nn.Module:
        """See `cab.Task.build`."""
        variances = self._variances[self.conditions["nmse"]]
        return ListTransformer(
            slots,
            longest=2 * self.setting.length,
            output_scale=variances.mean(0).sqrt().float(),
            dim=self.setting.dim,
            heads=self.setting.heads,
            layers=self.setting.layers,
        )

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Fresh lists of one length, uniform from 2 to the longest."""
        length = int(torch.randint(_SHORTEST, self.setting.length + 1, (), generator=generator))
        lists = draw_lists(self.recipe.batch_size, length, 1.0, generator)
        return {"lists": lists, "targets": targets_of(lists)}

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Normalised error of the batch, mean over the functions."""
        length = batch["lists"].shape[1]
        return self._normalised(model(batch["lists"]), batch, Condition(length, 1.0)).mean()

    def examples(self, split: Split, condition: Condition, seed: int) -> Batch:
        """The evaluated lists of a split."""
        generator = seeds.evaluation(seed, split, condition.name)
        lists = draw_lists(self.setting.lists[split], *condition, generator)
        return {"lists": lists, "targets": targets_of(lists)}

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """Normalised errors in and out of the distribution of training."""
        scores: dict[str, float] = {}
        for name, condition in self.conditions.items():
            batch = beside(model, self.examples(split, condition, seed))
            errors = self._normalised(model(batch["lists"]), batch, condition)
            scores[name] = errors.mean().item()
            if name == "nmse":
                scores |= {f"nmse_{f}": e.item() for f, e in zip(FUNCTIONS, errors, strict=True)}
        return scores

    def _normalised(self, predicted: Tensor, batch: Batch, condition: Condition) -> Tensor:
        """(F,) errors: squared, by the target's variance, mean over lists and positions."""
        squared = (predicted.float() - batch["targets"]).square().mean(0)
        return (squared / self._variances[condition].to(squared)).mean(0)

    def references(self, seed: int) -> dict[str, float]:
        """Predictors in closed form, in float64, on the test lists."""
        usual, large = self.conditions["nmse"], self.conditions["nmse_scale_8"]
        lists, targets = self.statistics_draw(usual)
        coefficients = linear_predictor(lists, targets.flatten(1))

        def error(condition: Condition, linear: bool) -> float:
            batch = self.examples("test", condition, seed)
            x, y = batch["lists"].double(), batch["targets"].double()
            predicted = (with_one(x) @ coefficients).view_as(y) if linear else targets.mean(0)
            squared = (predicted - y).square().mean(0)
            return (squared / self._variances[condition]).mean().item()

        return {
            "best-constant": error(usual, linear=False),
            "best-linear": error(usual, linear=True),
            "best-linear-scale-8": error(large, linear=True),
        }

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """Targets and predictions of one list, and errors by position."""
        usual = self.conditions["nmse"]
        batch = self.examples("test", usual, seed)
        predicted = model(beside(model, batch)["lists"]).cpu().float()
        squared = (predicted - batch["targets"]).square().mean(0)
        errors = squared / self._variances[usual].to(squared)
        names = [name.replace("_", "-") for name in FUNCTIONS]
        example = {
            name: {
                "truth": batch["targets"][0, :, i].tolist(),
                "predicted": predicted[0, :, i].tolist(),
            }
            for i, name in enumerate(names)
        }
        return [
            pictures.lines(
                "example", "The five functions of a test list.", example, x="position", y="value"
            ),
            pictures.lines(
                "errors-by-position",
                "Normalised error of test lists by position.",
                {"test": {name: errors[:, i].tolist() for i, name in enumerate(names)}},
                x="position",
                y="nmse",
            ),
        ]
