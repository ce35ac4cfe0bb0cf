"""What the tasks on piecewise linear problems share: drawing, scoring by place, references."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cab import Artifact, Batch, GeneratedTask, Pattern, Scale, seeds
from cab.task_contract import Split
from tasks.artifacts import pictures
from tasks.evaluation import beside
from tasks.problems.piecewise_linear import (
    SPREAD,
    Problem,
    draw_problem,
    draw_queries,
    source_batch,
    stream_batch,
)
from tasks.problems.piecewise_linear_predictors import (
    MESA_RIDGE,
    oracle_queries,
    oracle_stream,
    ridge_queries,
    ridge_stream,
)

PROBLEMS_AT_ONCE = 8
"""Evaluation runs in parts, to bound the memory of mechanisms that hold d^2 numbers per key."""

_MOST_POINTS = 256
"""Of a curve; longer streams are averaged over windows."""


@dataclass(frozen=True)
class Setting:
    """Sizes of one scale."""

    length: int
    """Pairs per problem L."""
    segment: int
    """Pairs per segment S."""
    dim: int
    queries: int
    """Queries per problem in cross patterns."""
    problems: int
    """Problems of one evaluation."""
    steps: int
    """Training steps, taken only where there are parameters."""
    batch_size: int


@dataclass(frozen=True)
class Case:
    """A batch of problems, and what a model is shown of them."""

    problem: Problem
    chosen: Tensor | None
    """(B, Lq) segments of fresh queries; None on a stream"""
    batch: Batch


def draw_case(
    pattern: Pattern,
    problems: int,
    generator: torch.Generator,
    *,
    length: int,
    segment: int,
    dim: int,
    queries: int,
) -> Case:
    """Draw problems in the form that the pattern needs: a stream, or a source and queries."""
    problem = draw_problem(problems, length, segment, dim, generator)
    if not pattern.cross:
        return Case(problem, None, stream_batch(problem))
    inputs, targets, chosen = draw_queries(problem, queries, generator)
    return Case(problem, chosen, source_batch(problem, inputs, targets))


def model_errors(model: nn.Module, case: Case) -> Tensor:
    """(B, Lq) squared errors, means over dimensions; zero at a stream's first position."""
    batch = beside(model, case.batch)
    errors = (model(batch).float() - batch["targets"]).square().mean(-1).cpu()
    return errors if case.chosen is not None else F.pad(errors, (1, 0))


def closed_form_errors(case: Case) -> dict[str, Tensor]:
    """(B, Lq) squared errors of the references, by name; the same positions as `model_errors`."""
    problem, chosen = case.problem, case.chosen
    if chosen is None:
        targets = problem.y.double()
        predicted = {
            "oracle-least-squares": oracle_stream(problem),
            "mesa": ridge_stream(problem.x, problem.y, MESA_RIDGE),
        }
    else:
        inputs, targets = case.batch["queries"], case.batch["targets"].double()
        predicted = {
            "oracle-least-squares": oracle_queries(problem, inputs, chosen),
            "mesa": ridge_queries(problem.x, problem.y, inputs, MESA_RIDGE),
        }
    predicted["zero"] = torch.zeros_like(targets)
    errors = {name: (at - targets).square().mean(-1) for name, at in predicted.items()}
    if chosen is None:
        for at in errors.values():
            at[:, 0] = 0.0
    return errors


def scores_by_place(errors: Tensor, segment: int, *, stream: bool) -> dict[str, float]:
    """``mse``, and on a stream the errors of its parts, from (B, Lq) errors of problems."""
    if not stream:
        return {"mse": errors.mean().item()}
    later = errors.unflatten(1, (-1, segment))[:, 1:]
    quarter = segment // 4
    parts = {
        "mse": errors[:, 1:],
        "mse_first_segment": errors[:, 1:segment],
        "mse_early": later[:, :, :quarter],
        "mse_late": later[:, :, -quarter:],
    }
    return {name: part.mean().item() for name, part in parts.items()}


class RegressionTask(GeneratedTask):
    """Regression on piecewise linear problems in context."""

    settings: ClassVar[dict[Scale, Setting]]
    """Sizes by scale."""

    # The backbone has few parameters, or none, that a share could be taken of.
    parameter_budget: ClassVar[float | None] = None

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        self.setting = self.settings[scale]

    @property
    def problem_settings(self) -> object:
        """See `cab.GeneratedTask.problem_settings`."""
        return SPREAD, self.setting

    def length(self) -> tuple[int, int]:
        """Queries and keys of one problem at the setting of the headline."""
        if self.pattern.cross:
            return self.setting.queries, self.setting.length
        return self.setting.length - 1, self.setting.length - 1

    def draw(
        self,
        problems: int,
        generator: torch.Generator,
        segment: int | None = None,
        dim: int | None = None,
    ) -> Case:
        """Fresh problems, at the setting's segment length and dimension where none is given."""
        return draw_case(
            self.pattern,
            problems,
            generator,
            length=self.setting.length,
            segment=segment or self.setting.segment,
            dim=dim or self.setting.dim,
            queries=self.setting.queries,
        )

    def cases(self, split: Split, seed: int) -> Iterator[Case]:
        """The problems of the headline; the same for every call with the same arguments."""
        generator = seeds.evaluation(seed, split)
        for start in range(0, self.setting.problems, PROBLEMS_AT_ONCE):
            yield self.draw(min(PROBLEMS_AT_ONCE, self.setting.problems - start), generator)

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Fresh problems; none is ever seen twice."""
        return self.draw(self.setting.batch_size, generator).batch

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean squared error of the predictions."""
        return F.mse_loss(model(batch), batch["targets"])

    def causal_inputs(self) -> tuple[str, ...]:
        """See `cab.Task.causal_inputs`; of a stream also the pairs, each before its query."""
        return ("queries",) if self.pattern.cross else ("queries", "keys", "values")

    def causal_outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """(B, Lq, d) predictions."""
        return model(batch)

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """Errors at the setting of the headline, as a whole and by place in the stream."""
        errors = [model_errors(model, case) for case in self.cases(split, seed)]
        return self._scores(torch.cat(errors))

    def references(self, seed: int) -> dict[str, float]:
        """Closed forms on the test problems; ``mesa-late`` is the value of ``mse_late``."""
        cases = [closed_form_errors(case) for case in self.cases("test", seed)]
        values = {}
        for name in cases[0]:
            for metric, value in self._scores(torch.cat([case[name] for case in cases])).items():
                place = metric.removeprefix("mse").replace("_", "-")
                values[f"{name}{place}"] = value
        declared = {reference.name for reference in self.info.references}
        return {name: value for name, value in values.items() if name in declared}

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """How the errors are spread over problems, over a stream and over its segments."""
        parts: dict[str, list[Tensor]] = {}
        for case in self.cases("test", seed):
            forms = closed_form_errors(case)
            del forms["zero"]
            for name, part in {"error": model_errors(model, case), **forms}.items():
                parts.setdefault(name, []).append(part.double())
        errors = {name: torch.cat(part) for name, part in parts.items()}
        of_problem = errors["error"].mean(1).sort().values
        chart = pictures.lines(
            "errors-by-problem",
            f"Mean squared error of {len(of_problem)} test problems, the easiest first.",
            {"problems": {"error": of_problem.tolist()}},
            x="problem",
            y="mse",
        )
        if self.pattern.cross:
            return [chart]
        return [chart, *stream_charts(errors, self.setting.segment)]

    def _scores(self, errors: Tensor) -> dict[str, float]:
        return scores_by_place(errors, self.setting.segment, stream=not self.pattern.cross)


def stream_charts(errors: Mapping[str, Tensor], segment: int) -> list[Artifact]:
    """Curves over positions, and over the positions of segments after the first.

    Args:
        errors: by curve, (problems, L); the first position is not scored.
        segment: pairs per segment.
    """
    length = next(iter(errors.values())).shape[1]
    window = max(1, length // _MOST_POINTS)
    along, within = {}, {}
    for name, at in errors.items():
        curve = at.mean(0)
        curve[0] = torch.nan
        along[name] = curve.unflatten(0, (-1, window)).nanmean(1)[int(window == 1) :].tolist()
        within[name] = at.unflatten(1, (-1, segment))[:, 1:].mean((0, 1)).tolist()
    beside = (
        "beside least squares that knows the segments and ridge regression on all that was seen "
        "(Mesa)"
    )
    return [
        pictures.lines(
            "errors-by-position",
            f"Mean squared error by position, {beside}; a segment begins every {segment}.",
            {"positions": along},
            x="position" if window == 1 else f"position / {window}",
            y="mse",
            start=dict.fromkeys(along, int(window == 1)),
        ),
        pictures.lines(
            "errors-in-a-segment",
            f"Mean squared error by position in a segment of {segment} after the first, {beside}.",
            {"segment": within},
            x="position in the segment",
            y="mse",
        ),
    ]
