"""The task ``test-time-regression``."""

from __future__ import annotations

import hashlib
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from cab import (
    Artifact,
    Batch,
    Metric,
    Pattern,
    Recipe,
    Scale,
    Slots,
    Task,
    TaskInfo,
    register_task,
)
from cab.errors import UsageError
from cab.task_contract import Split
from tasks import pictures
from tasks.test_time_regression.model import Direct, source_batch, stream_batch
from tasks.test_time_regression.problem import SPREAD, draw_problem, draw_queries


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
    """Training steps, taken only where the mechanism has parameters."""
    batch_size: int


SETTINGS = {
    Scale.TINY: Setting(128, 32, 8, 64, problems=32, steps=20, batch_size=1),
    Scale.SMALL: Setting(1024, 256, 16, 256, problems=32, steps=100, batch_size=1),
}

# Far from the small seeds of training streams, so that no evaluated problem was trained on.
EVALUATION_SEED = {"validation": 1_000_000, "test": 2_000_000}

PROBLEMS_AT_ONCE = 8
"""Evaluation runs in parts, to bound the memory of mechanisms that hold d^2 numbers per key."""


@register_task(
    TaskInfo(
        id="test-time-regression",
        title="Test-time regression",
        description=(
            "Predict y = W_s x from the (x, y) pairs in context, where the map W_s changes from "
            "segment to segment. The mechanism is applied directly, without projections; only "
            "parameters of its own (a ridge, say) are trained, for a moment. The seed draws the "
            "problems: L = 1024 pairs in segments of 256 in 16 dimensions at scale small, "
            "L = 128 in segments of 32 in 8 at tiny. Causal self: each target of the stream from "
            "the pairs before it. Cross: fresh queries from all pairs."
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
        ),
        scales=(Scale.TINY, Scale.SMALL),
        dataset="generated",
        paper="Zuo et al., Local Linear Attention (test-time regression experiment)",
        url="https://arxiv.org/abs/2510.01450",
    )
)
class TestTimeRegression(Task):
    """Regression in context by the bare mechanism.

    With the control ``none`` a causal self slot repeats the previous target and a cross slot
    predicts zero.
    """

    __test__ = False  # its name looks like a test case to pytest

    # The backbone has no parameters that a share could be taken of.
    parameter_budget: ClassVar[float | None] = None

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        if data_dir is not None:
            raise UsageError(f"task {self.info.id!r} generates its problems; it reads no data_dir")
        self.setting = SETTINGS[scale]

    @property
    def data_hash(self) -> str:
        """Hash of the generator's settings."""
        text = f"piecewise-linear {SPREAD} {astuple(self.setting)}"
        return hashlib.sha256(text.encode()).hexdigest()

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

    def length(self) -> tuple[int, int]:
        """Queries and keys of one problem."""
        setting = self.setting
        return (setting.queries if self.pattern.cross else setting.length), setting.length

    def build(self, slots: Slots) -> nn.Module:
        """The bare mechanism."""
        return Direct(slots, self.pattern, self.setting.dim, self.setting.length)

    def draw(self, problems: int, generator: torch.Generator) -> Batch:
        """A batch of fresh problems in the form that the pattern needs."""
        setting = self.setting
        problem = draw_problem(problems, setting.length, setting.segment, setting.dim, generator)
        if not self.pattern.cross:
            return stream_batch(problem)
        inputs, targets, _ = draw_queries(problem, setting.queries, generator)
        return source_batch(problem, inputs, targets)

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Fresh problems; none is ever seen twice."""
        return self.draw(self.setting.batch_size, generator)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean squared error of the scored predictions."""
        return _squared_errors(model, batch).mean()

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """``mse`` over problems drawn from (split, seed)."""
        generator = torch.Generator().manual_seed(EVALUATION_SEED[split] + seed)
        assert isinstance(model, Direct)
        errors = []
        for start in range(0, self.setting.problems, PROBLEMS_AT_ONCE):
            count = min(PROBLEMS_AT_ONCE, self.setting.problems - start)
            batch = self.draw(count, generator)
            batch = {name: tensor.to(model.place.device) for name, tensor in batch.items()}
            errors.append(_squared_errors(model, batch))
        return {"mse": torch.cat(errors).mean().item()}

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """How the errors are spread over problems, and in self attention over positions."""
        generator = torch.Generator().manual_seed(EVALUATION_SEED["test"] + seed)
        assert isinstance(model, Direct)
        drawn = self.draw(PROBLEMS_AT_ONCE, generator)
        batch = {name: tensor.to(model.place.device) for name, tensor in drawn.items()}
        scored = batch["scored"].expand(batch["targets"].shape[:2])
        errors = (model(batch) - batch["targets"]).square().mean(-1).masked_fill(~scored, 0.0)
        of_problem = (errors.sum(1) / scored.sum(1)).sort().values
        charts = [
            pictures.lines(
                "errors-by-problem",
                f"Mean squared error of {len(of_problem)} test problems, the easiest first.",
                {"problems": {"error": of_problem.tolist()}},
                x="problem",
                y="mse",
            )
        ]
        if not self.pattern.cross:
            counted = scored.sum(0).clamp(min=1)
            charts.append(
                pictures.lines(
                    "errors-by-position",
                    "Mean squared error by position; a segment begins every "
                    f"{self.setting.segment} positions.",
                    {"positions": {"error": (errors.sum(0) / counted).tolist()}},
                    x="position",
                    y="mse",
                )
            )
        return charts


def _squared_errors(model: nn.Module, batch: Batch) -> Tensor:
    """Squared errors of the scored positions, (positions, d)."""
    scored = batch["scored"]
    return (model(batch)[scored] - batch["targets"][scored]).square()
