"""The task ``test-time-regression``: the bare mechanism, and a sweep of segments and dimensions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cab import (
    Artifact,
    Batch,
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
from tasks.artifacts import charts
from tasks.problems.regression_task import (
    Case,
    RegressionTask,
    Setting,
    closed_form_errors,
    model_errors,
    scores_by_place,
)
from tasks.test_time_regression.model import DirectSweep

SETTINGS = {
    Scale.TINY: Setting(128, 32, 8, 64, problems=32, steps=20, batch_size=1),
    Scale.SMALL: Setting(1024, 256, 16, 256, problems=32, steps=100, batch_size=1),
    Scale.BASE: Setting(4096, 512, 64, 1024, problems=64, steps=200, batch_size=4),
}


@dataclass(frozen=True)
class Sweep:
    """A grid of segment lengths and dimensions."""

    segments: tuple[int, ...]
    dims: tuple[int, ...]
    problems: int
    """Per cell of the grid."""


SWEEPS = {
    Scale.TINY: Sweep((32, 64), (8, 16), problems=2),
    Scale.SMALL: Sweep((32, 64, 128, 256), (8, 16, 32, 64), problems=8),
    Scale.BASE: Sweep((32, 64, 128, 256), (8, 16, 32, 64), problems=16),
}


@register_task(
    TaskInfo(
        id="test-time-regression",
        title="Test-time regression",
        description=(
            "Predict y = W_s x from the (x, y) pairs in context, where the map W_s changes from "
            "segment to segment. The mechanism is applied directly, without projections; only "
            "parameters of its own (a ridge, say) are trained, for a moment, in a module per "
            "dimension. The seed draws the problems: L = 1024 pairs in segments of 256 in 16 "
            "dimensions at scale small, L = 128 in segments of 32 in 8 at tiny, L = 4096 in "
            "segments of 512 in 64 at base; the sweep keeps L (tiny: up to 64 and 16). Causal "
            "self: each target of the stream from the pairs before it. Cross: fresh queries from "
            "all pairs."
        ),
        backbones={
            Pattern.CAUSAL_SELF: "direct",
            Pattern.NONCAUSAL_CROSS: "direct",
            Pattern.CAUSAL_CROSS: "direct",
        },
        metrics=(
            Metric(
                name="mse",
                unit="1",
                higher_is_better=False,
                help="squared error per output dimension; predicting zero scores 1",
            ),
            Metric(
                name="mse_first_segment",
                unit="1",
                higher_is_better=False,
                help="in the first segment of a stream, where there is one map yet",
                headline=False,
            ),
            Metric(
                name="mse_early",
                unit="1",
                higher_is_better=False,
                help="in the first quarter of every segment of a stream after the first",
                headline=False,
            ),
            Metric(
                name="mse_late",
                unit="1",
                higher_is_better=False,
                help="in the last quarter of every segment of a stream after the first",
                headline=False,
            ),
            *tuple(
                Metric(
                    name=f"mse_s{segment}_d{dim}",
                    unit="1",
                    higher_is_better=False,
                    help=f"segments of {segment} pairs in {dim} dimensions",
                    headline=False,
                )
                for dim in (8, 16, 32, 64)
                for segment in (32, 64, 128, 256)
            ),
        ),
        references=(
            Reference("zero", metric="mse", help="predicting zero; 1 in expectation"),
            Reference(
                "oracle-least-squares",
                metric="mse",
                help="least squares on the pairs of the query's own segment: what a predictor that "
                "knows where segments begin can reach",
            ),
            Reference(
                "mesa",
                metric="mse",
                help="ridge regression on all pairs seen (ridge 0.01): the Mesa layer in closed "
                "form",
            ),
            *tuple(
                Reference(f"{name}-{place}", metric=metric, help=f"{name}, {where}")
                for name in ("oracle-least-squares", "mesa")
                for place, metric, where in (
                    ("first-segment", "mse_first_segment", "in the first segment"),
                    ("early", "mse_early", "early in segments after the first"),
                    ("late", "mse_late", "late in segments after the first"),
                )
            ),
            *tuple(
                Reference(
                    f"{name}-s{segment}-d{dim}",
                    metric=f"mse_s{segment}_d{dim}",
                    help=f"{name}, segments of {segment} pairs in {dim} dimensions",
                )
                for name in ("oracle-least-squares", "mesa")
                for dim in (8, 16, 32, 64)
                for segment in (32, 64, 128, 256)
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="generated",
        paper="Zuo et al., Local Linear Attention (test-time regression experiment)",
        url="https://arxiv.org/abs/2510.01450",
        probe=True,
        fresh_evaluation=True,
    )
)
class TestTimeRegression(RegressionTask):
    """Regression in context by the bare mechanism.

    With the control ``none`` a causal self slot repeats the previous target and a cross slot
    predicts zero.

    A mechanism is built for one head dimension, so the sweep needs a module per dimension. All of
    them train together, each on streams of its dimension with the default segment length; the
    segment lengths of the sweep are not trained on.
    """

    __test__ = False  # its name looks like a test case to pytest

    settings = SETTINGS

    @property
    def sweep(self) -> Sweep:
        """The grid at this scale."""
        return SWEEPS[self.scale]

    @property
    def problem_settings(self) -> object:
        """See `cab.GeneratedTask.problem_settings`; the sweep's are among them."""
        return super().problem_settings, self.sweep

    @property
    def recipe(self) -> Recipe:
        """A few steps with a large rate: what is trained is a handful of scalars."""
        return Recipe(
            steps=self.setting.steps,
            batch_size=self.setting.batch_size,
            learning_rate=0.1,
            warmup_steps=4,
            weight_decay=0.0,
            evaluations=2,
        )

    @property
    def dims(self) -> tuple[int, ...]:
        """Dimensions with a module: the headline's first, then the sweep's others."""
        own = self.setting.dim
        return own, *(dim for dim in self.sweep.dims if dim != own)

    def build(self, slots: Slots) -> nn.Module:
        """The bare mechanism, once per dimension."""
        return DirectSweep(slots, self.pattern, self.dims, self.setting.length)

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Fresh problems of every dimension d, their tensors named ``d.queries`` and so on."""
        return {
            f"{dim}.{name}": tensor
            for dim in self.dims
            for name, tensor in self.draw(self.setting.batch_size, generator, dim=dim).batch.items()
        }

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean squared errors, summed over dimensions, which share no parameter."""
        return torch.stack(
            [RegressionTask.loss(self, model, _of_dim(batch, dim)) for dim in self.dims]
        ).sum()

    def causal_inputs(self) -> tuple[str, ...]:
        """See `RegressionTask.causal_inputs`; of every dimension."""
        return tuple(
            f"{dim}.{name}" for dim in self.dims for name in RegressionTask.causal_inputs(self)
        )

    def causal_outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """(B, Lq, sum of d) predictions of every dimension, side by side."""
        return torch.cat([model(_of_dim(batch, dim)) for dim in self.dims], -1)

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """The headline with its parts, and every cell of the sweep."""
        scores = super().evaluate(model, split, seed)
        for segment, dim, case in self.sweep_cases(split, seed):
            errors = model_errors(model, case)
            scores[f"mse_s{segment}_d{dim}"] = self._mean(errors, segment)
        return scores

    def references(self, seed: int) -> dict[str, float]:
        """See `RegressionTask.references`; ``mesa-s32-d8`` is the value of ``mse_s32_d8``."""
        values = super().references(seed)
        for segment, dim, case in self.sweep_cases("test", seed):
            errors = closed_form_errors(case)
            for name in ("oracle-least-squares", "mesa"):
                values[f"{name}-s{segment}-d{dim}"] = self._mean(errors[name], segment)
        return values

    def sweep_cases(self, split: Split, seed: int) -> Iterator[tuple[int, int, Case]]:
        """Segment length, dimension and problems of every cell of the sweep."""
        for dim in self.sweep.dims:
            for segment in self.sweep.segments:
                generator = seeds.evaluation(seed, split, "sweep", segment, dim)
                yield segment, dim, self.draw(self.sweep.problems, generator, segment, dim)

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """See `RegressionTask.artifacts`; and the sweep."""
        table: dict[charts.Level, dict[charts.Level, float]] = {}
        for segment, dim, case in self.sweep_cases("test", seed):
            error = self._mean(model_errors(model, case), segment)
            table.setdefault(dim, {})[segment] = error
        chart = charts.heat(
            "errors-by-segment-and-dimension",
            "Mean squared error over the sweep; predicting zero scores 1.",
            table,
            x="pairs per segment",
            y="dimensions",
            value="mse",
        )
        return [*super().artifacts(model, seed), chart]

    def _mean(self, errors: Tensor, segment: int) -> float:
        return scores_by_place(errors, segment, stream=not self.pattern.cross)["mse"]


def _of_dim(batch: Batch, dim: int) -> Batch:
    """The problems of one dimension in a training batch."""
    prefix = f"{dim}."
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in batch.items()
        if name.startswith(prefix)
    }
