"""The task ``in-context-linear-regression``: one layer, one linear map a prompt, with noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
from cab.analysis import Analysis
from cab.task_contract import Split
from tasks.artifacts import charts, pictures
from tasks.in_context_regression.linear_conditions import Condition, closed_forms, conditions
from tasks.in_context_regression.linear_model import (
    LayerPerKind,
    OneLayer,
    predict,
)
from tasks.in_context_regression.linear_predictors import excess_risk
from tasks.in_context_regression.linear_prompts import Prompts
from tasks.in_context_regression.linear_structure import describe_heads, structure


@dataclass(frozen=True)
class Setting:
    """Sizes of one scale."""

    dim: int
    """Of x."""
    length: int
    """Pairs per prompt in training."""
    tasks: int
    """Targets per input in the multi-task condition."""
    heads: int
    head_dim: int
    queries: int
    """Queries per prompt in cross attention; a stream has one."""
    prompts: int
    """Prompts of one evaluation, of every condition."""
    steps: int
    batch_size: int
    noise: float = 0.1
    ratio: float = 16.0
    """In the anisotropic condition."""


SETTINGS = {
    Scale.TINY: Setting(5, 40, 2, 2, 8, queries=8, prompts=256, steps=100, batch_size=32),
    Scale.SMALL: Setting(5, 40, 3, 4, 8, queries=8, prompts=2048, steps=500, batch_size=64),
    Scale.BASE: Setting(20, 160, 6, 8, 32, queries=16, prompts=4096, steps=10000, batch_size=256),
}


@register_task(
    TaskInfo(
        id="in-context-linear-regression",
        title="In-context linear regression",
        description=(
            "Predict beta·x at a query from L pairs (x, beta·x + noise) of the prompt, by one "
            "layer of multi-head attention and nothing else. L = 40 pairs in 5 dimensions with 4 "
            "heads at scale small (2 heads at tiny), 160 in 20 with 8 at base; noise variance 0.1. "
            "Prompts of uncorrelated inputs of equal variance, of inputs of unequal variance and "
            "of several targets per input are each learned by a layer of their own, trained side "
            "by side. Causal self: the query is the last token of the prompt. Noncausal cross: "
            "queries attend to the prompt."
        ),
        backbones={
            Pattern.CAUSAL_SELF: "one-layer",
            Pattern.NONCAUSAL_CROSS: "one-layer",
        },
        metrics=(
            Metric(
                name="excess_risk",
                unit="1",
                higher_is_better=False,
                help="squared error to the target without noise; predicting zero scores 1",
            ),
            Metric(
                name="excess_risk_2x",
                unit="1",
                higher_is_better=False,
                help="with prompts twice as long as in training",
                headline=False,
            ),
            Metric(
                name="excess_risk_4x",
                unit="1",
                higher_is_better=False,
                help="with prompts four times as long as in training",
                headline=False,
            ),
            Metric(
                name="excess_risk_noisy",
                unit="1",
                higher_is_better=False,
                help="with four times the noise variance of training",
                headline=False,
            ),
            Metric(
                name="excess_risk_anisotropic",
                unit="1",
                higher_is_better=False,
                help="trained and tested on inputs whose coordinates have variances from large to "
                "a sixteenth of it, in geometric steps, 1 on average",
                headline=False,
            ),
            Metric(
                name="excess_risk_multi_task",
                unit="1",
                higher_is_better=False,
                help="trained and tested on several targets per input (3 at scale small, 2 at "
                "tiny, 6 at base), mean over them",
                headline=False,
            ),
        ),
        references=(
            Reference("zero", metric="excess_risk", help="predicting zero; 1 in expectation"),
            Reference(
                "gradient-step",
                metric="excess_risk",
                help="one step of gradient descent from zero, of the best size: what linear "
                "attention can learn",
            ),
            Reference(
                "gradient-step-theory", metric="excess_risk", help="its expected value, exactly"
            ),
            Reference(
                "debiased-step",
                metric="excess_risk",
                help="the same with centred inputs: what a positive and a negative head of softmax "
                "attention can learn",
            ),
            Reference(
                "debiased-step-theory", metric="excess_risk", help="its expected value, exactly"
            ),
            Reference(
                "bayes",
                metric="excess_risk",
                help="ridge regression with the ridge d sigma^2, the posterior mean: no predictor "
                "is better",
            ),
            *tuple(
                Reference(f"{name}-{shift}", metric=f"excess_risk_{shift}", help=what)
                for shift in ("2x", "4x", "noisy")
                for name, what in (
                    ("gradient-step", "the step that is best in training"),
                    ("gradient-step-theory", "expected value of that step"),
                    ("debiased-step", "the debiased step that is best in training"),
                    ("debiased-step-theory", "expected value of that debiased step"),
                    ("bayes", "ridge regression with the ridge of these prompts"),
                )
            ),
            Reference(
                "gradient-step-anisotropic",
                metric="excess_risk_anisotropic",
                help="a gradient step of the best size for every coordinate",
            ),
            Reference(
                "gradient-step-theory-anisotropic",
                metric="excess_risk_anisotropic",
                help="its expected value, exactly",
            ),
            Reference(
                "bayes-anisotropic", metric="excess_risk_anisotropic", help="ridge d sigma^2"
            ),
            Reference(
                "gradient-step-multi-task",
                metric="excess_risk_multi_task",
                help="the best gradient step, for every target",
            ),
            Reference(
                "debiased-step-multi-task",
                metric="excess_risk_multi_task",
                help="the best debiased step, for every target",
            ),
            Reference("bayes-multi-task", metric="excess_risk_multi_task", help="ridge d sigma^2"),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="generated",
        paper="He et al., In-Context Linear Regression Demystified",
        url="https://arxiv.org/abs/2503.12734",
        probe=True,
        fresh_evaluation=True,
    )
)
class InContextLinearRegression(GeneratedTask):
    """What one layer of attention learns to do with noisy linear pairs.

    Weights start as torch draws them for any linear layer; nothing of the solution is built in.
    Training, as the scores, compares with targets without noise: it has the same optimum as with
    noise, and less of it in the gradients.
    """

    # The backbone has next to no parameters that a share could be taken of.
    parameter_budget: ClassVar[float | None] = None

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        setting = SETTINGS[scale]
        self.setting = setting
        self.conditions = conditions(
            setting.dim, setting.length, setting.noise, setting.tasks, setting.ratio
        )
        self.trained: dict[str, Condition] = {}
        """By kind of prompt, the condition that its layer is trained on"""
        for condition in self.conditions.values():
            self.trained.setdefault(condition.kind, condition)

    @property
    def problem_settings(self) -> object:
        """See `cab.GeneratedTask.problem_settings`."""
        return self.setting, self.conditions

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return Recipe(
            steps=self.setting.steps,
            batch_size=self.setting.batch_size,
            learning_rate=2e-3 if self.scale is Scale.BASE else 2e-2,
            weight_decay=0.0,
            evaluations=2,
        )

    def length(self) -> tuple[int, int]:
        """Queries and keys of the longest prompts."""
        longest = max(condition.length for condition in self.conditions.values())
        if self.pattern.cross:
            return self.setting.queries, longest
        return longest + 1, longest + 1

    def build(self, slots: Slots) -> nn.Module:
        """A layer per kind of prompt."""
        setting = self.setting
        return LayerPerKind(
            {
                kind: OneLayer(
                    slots,
                    self.pattern,
                    dim=setting.dim,
                    tasks=condition.tasks,
                    heads=setting.heads,
                    head_dim=setting.head_dim,
                    max_length=self.length()[1],
                )
                for kind, condition in self.trained.items()
            }
        )

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Fresh prompts of every kind, their tensors named ``kind.x`` and so on."""
        return {
            f"{kind}.{name}": tensor
            for kind, condition in self.trained.items()
            for name, tensor in vars(
                condition.draw(self.setting.batch_size, self.queries, generator)
            ).items()
        }

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Excess risks of the kinds, summed."""
        risks = []
        for kind in self.trained:
            part = {name: batch[f"{kind}.{name}"] for name in ("x", "y", "queries")}
            risks.append(F.mse_loss(model(kind, part), batch[f"{kind}.signal"]))
        return torch.stack(risks).sum()

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """The excess risk under every condition."""
        scores = {}
        for ending, condition in self.conditions.items():
            prompts = self.prompts(ending, split, seed)
            scores[f"excess_risk{ending}"] = excess_risk(
                predict(model, condition.kind, prompts), prompts
            )
        return scores

    def references(self, seed: int) -> dict[str, float]:
        """Closed forms on the test prompts; ``bayes-2x`` is the value of ``excess_risk_2x``."""
        values = {}
        for ending, condition in self.conditions.items():
            prompts = self.prompts(ending, "test", seed)
            forms = closed_forms(condition, self.trained[condition.kind], prompts)
            for name, value in forms.items():
                values[name + ending.replace("_", "-")] = value
        declared = {reference.name for reference in self.info.references}
        return {name: value for name, value in values.items() if name in declared}

    @property
    def queries(self) -> int:
        """Per prompt."""
        return self.setting.queries if self.pattern.cross else 1

    def prompts(self, ending: str, split: Split, seed: int) -> Prompts:
        """The evaluated prompts of a condition; the same for every call with these arguments."""
        # Conditions do not share a stream, so that no number moves when another condition does.
        generator = seeds.evaluation(seed, split, ending)
        return self.conditions[ending].draw(self.setting.prompts, self.queries, generator)

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """Risk over the length of prompts, and what the projections of the heads have become."""
        usual = self.conditions[""]
        curves: dict[str, dict[float, float]] = {}
        for exponent in range(-2, 3):
            length = int(usual.length * 2.0**exponent)
            generator = seeds.evaluation(seed, "test", "")
            condition = replace(usual, length=length)
            prompts = condition.draw(self.setting.prompts, self.queries, generator)
            forms = closed_forms(condition, usual, prompts)
            points = {
                "error": excess_risk(predict(model, usual.kind, prompts), prompts),
                "gradient step": forms["gradient-step-theory"],
                "debiased step": forms["debiased-step-theory"],
                "bayes": forms["bayes"],
            }
            for name, value in points.items():
                curves.setdefault(name, {})[length] = value
        chart = charts.curves(
            "risk-by-length",
            f"Excess risk by the length of the prompt, {usual.length} in training, beside steps of "
            "the size that is best there and the Bayes predictor of each length.",
            curves,
            x="pairs in the prompt",
            y="excess risk",
            doubling=True,
        )
        summary = pictures.text(
            "heads",
            "Projections of the heads: how they compare inputs, and what they do with targets.",
            describe_heads(self._usual_layer(model), self.setting.dim),
        )
        return [chart, summary]

    def analyses(self, model: nn.Module) -> Mapping[Analysis, float]:
        """What the heads of the layer for isotropic prompts have become: see `structure`."""
        return structure(self._usual_layer(model), self.setting.dim)

    def _usual_layer(self, model: nn.Module) -> OneLayer:
        assert isinstance(model, LayerPerKind)
        layer = model.layers[self.conditions[""].kind]
        assert isinstance(layer, OneLayer)
        return layer
