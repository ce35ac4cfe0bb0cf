"""The task ``in-context-regression``: two trained layers on maps that change without notice."""

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
from tasks.in_context_regression.model import PairTransformer
from tasks.problems.regression_task import (
    PROBLEMS_AT_ONCE,
    Case,
    RegressionTask,
    Setting,
    closed_form_errors,
    model_errors,
    scores_by_place,
)

SEGMENTS = (16, 32, 64, 128)
"""Pairs per segment, drawn afresh for every training batch."""

SETTINGS = {
    Scale.TINY: Setting(128, 32, 8, 64, problems=8, steps=40, batch_size=4),
    Scale.SMALL: Setting(128, 32, 8, 64, problems=64, steps=600, batch_size=8),
    Scale.BASE: Setting(1024, 32, 32, 512, problems=64, steps=4000, batch_size=32),
}


@dataclass(frozen=True)
class Stack:
    """Sizes of the backbone."""

    width: int
    heads: int
    layers: int = 2


STACKS = {
    Scale.TINY: Stack(32, 2),
    Scale.SMALL: Stack(64, 4),
    Scale.BASE: Stack(256, 4),
}


@register_task(
    TaskInfo(
        id="in-context-regression",
        title="In-context regression",
        description=(
            "Predict y = W_s x from the (x, y) pairs in context, where the map W_s changes from "
            "segment to segment, by two trained layers of attention without feed-forward. 128 "
            "pairs in 8 dimensions at scale small (as in tiny, trained for longer), 1024 in 32 at "
            "base; segments of 16, 32, 64 or 128 pairs, mixed in training. Causal self: each "
            "target of the stream from the pairs before it. Noncausal cross: fresh queries from "
            "all pairs."
        ),
        backbones={
            Pattern.CAUSAL_SELF: "pairs-and-queries",
            Pattern.NONCAUSAL_CROSS: "pairs-and-queries",
        },
        metrics=(
            Metric(
                name="mse",
                unit="1",
                higher_is_better=False,
                help="squared error per output dimension, mean over the segment lengths; "
                "predicting zero scores 1",
            ),
            *tuple(
                Metric(
                    name=f"mse_s{segment}",
                    unit="1",
                    higher_is_better=False,
                    help=f"with segments of {segment} pairs",
                    headline=False,
                )
                for segment in (16, 32, 64, 128)
            ),
        ),
        references=(
            *tuple(
                Reference(f"{name}{suffix}", metric=f"mse{metric}", help=f"{what}{where}")
                for name, what in (
                    ("zero", "predicting zero; 1 in expectation"),
                    ("oracle-least-squares", "least squares on the pairs of the query's segment"),
                    ("mesa", "ridge regression on all pairs seen (ridge 0.01)"),
                )
                for suffix, metric, where in (
                    ("", "", ""),
                    ("-s16", "_s16", ", segments of 16 pairs"),
                    ("-s32", "_s32", ", segments of 32 pairs"),
                    ("-s64", "_s64", ", segments of 64 pairs"),
                    ("-s128", "_s128", ", segments of 128 pairs"),
                )
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="generated",
        paper="Zuo et al., Local Linear Attention (in-context regression experiment)",
        url="https://arxiv.org/abs/2510.01450",
        probe=True,
        fresh_evaluation=True,
    )
)
class InContextRegression(RegressionTask):
    """Piecewise linear regression by a trained stack of attention layers.

    The problems are those of `tasks.problems.piecewise_linear`, shorter. The experiment of the
    paper has 32 dimensions, as scale base; its lengths and training are not known to us.
    """

    settings = SETTINGS

    @property
    def problem_settings(self) -> object:
        """See `cab.GeneratedTask.problem_settings`."""
        return super().problem_settings, SEGMENTS

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return Recipe(
            steps=self.setting.steps,
            batch_size=self.setting.batch_size,
            learning_rate=3e-3 if self.scale is Scale.BASE else 1e-2,
            weight_decay=0.0,
        )

    def length(self) -> tuple[int, int]:
        """Queries and keys of one problem; a stream has a token per pair and one per query."""
        if self.pattern.cross:
            return self.setting.queries, self.setting.length
        return (2 * (self.setting.length - 1),) * 2

    def build(self, slots: Slots) -> nn.Module:
        """Two layers."""
        stack = STACKS[self.scale]
        return PairTransformer(
            slots,
            self.pattern,
            dim=self.setting.dim,
            width=stack.width,
            heads=stack.heads,
            layers=stack.layers,
            max_length=self.length()[1],
        )

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Fresh problems of one segment length."""
        segment = SEGMENTS[int(torch.randint(len(SEGMENTS), (), generator=generator))]
        return self.draw(self.setting.batch_size, generator, segment).batch

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """``mse``, and its parts by segment length."""
        return self._by_segment(
            (segment, model_errors(model, case)) for segment, case in self.sweep_cases(split, seed)
        )

    def references(self, seed: int) -> dict[str, float]:
        """Closed forms on the test problems; ``mesa-s16`` is the value of ``mse_s16``."""
        forms = [(s, closed_form_errors(case)) for s, case in self.sweep_cases("test", seed)]
        values = {}
        for name in forms[0][1]:
            for metric, value in self._by_segment((s, form[name]) for s, form in forms).items():
                values[name + metric.removeprefix("mse").replace("_", "-")] = value
        return values

    def sweep_cases(self, split: Split, seed: int) -> Iterator[tuple[int, Case]]:
        """Segment lengths with some of their problems."""
        for segment in SEGMENTS:
            generator = seeds.evaluation(seed, split, "sweep", segment)
            for start in range(0, self.setting.problems, PROBLEMS_AT_ONCE):
                count = min(PROBLEMS_AT_ONCE, self.setting.problems - start)
                yield segment, self.draw(count, generator, segment)

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """See `RegressionTask.artifacts`; and the errors by segment length."""
        scores = {"error": self.evaluate(model, "test", seed)}
        references = self.references(seed)
        for name in ("oracle-least-squares", "mesa"):
            scores[name] = {f"mse_s{s}": references[f"{name}-s{s}"] for s in SEGMENTS}
        chart = charts.curves(
            "errors-by-segment-length",
            "Mean squared error by segment length, beside least squares that knows the segments "
            "and ridge regression on all that was seen (Mesa).",
            {name: {s: at[f"mse_s{s}"] for s in SEGMENTS} for name, at in scores.items()},
            x="pairs per segment",
            y="mse",
            doubling=True,
        )
        return [*super().artifacts(model, seed), chart]

    def _by_segment(self, parts: Iterator[tuple[int, Tensor]]) -> dict[str, float]:
        stream = not self.pattern.cross
        errors: dict[int, list[Tensor]] = {}
        for segment, of_problems in parts:
            errors.setdefault(segment, []).append(of_problems)
        scores = {
            f"mse_s{segment}": scores_by_place(torch.cat(part), segment, stream=stream)["mse"]
            for segment, part in errors.items()
        }
        return {"mse": sum(scores.values()) / len(scores), **scores}
