"""The task ``state-tracking``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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
from cab.task_contract import Split
from tasks.artifacts import charts
from tasks.backbones.token_transformer import TokenTransformer
from tasks.evaluation import beside, parts, share
from tasks.state_tracking.model import start_from_moves
from tasks.state_tracking.problem import Case, draw_letters, track, track_last

CASES = (
    Case("swaps", 4),
    Case("swaps", 8),
    Case("swaps", 16),
    Case("words", 3),
    Case("words", 5),
)
MOST_OBJECTS = max(case.objects for case in CASES)


@dataclass(frozen=True)
class Setting:
    """Sizes of one scale."""

    steps: int
    """Letters of a word"""
    dim: int
    heads: int
    layers: int
    problems: int
    """Words of one evaluation, per case"""
    recipe: Recipe


SETTINGS = {
    Scale.TINY: Setting(
        steps=8,
        dim=64,
        heads=4,
        layers=2,
        problems=64,
        recipe=Recipe(steps=150, batch_size=32, learning_rate=4e-3),
    ),
    Scale.SMALL: Setting(
        steps=16,
        dim=64,
        heads=4,
        layers=2,
        problems=256,
        recipe=Recipe(steps=1200, batch_size=32, learning_rate=4e-3),
    ),
    Scale.BASE: Setting(
        steps=64,
        dim=256,
        heads=8,
        layers=4,
        problems=1024,
        recipe=Recipe(
            steps=10_000,
            batch_size=256,
            learning_rate=1e-3,
            warmup_steps=300,
            evaluations=5,
            precision="bfloat16",
        ),
    ),
}

EVALUATED_STEPS = (1, 2, 4, 8, 16, 32, 64)
WINDOWS = {"memoryless": 1, "last-two": 2, "last-four": 4}

_AT_ONCE = 256
"""Words of one forward pass in evaluation"""


@register_task(
    TaskInfo(
        id="state-tracking",
        title="State tracking",
        description=(
            "N objects change places at every token; after each, say which object stands where. "
            "Tokens are swaps of two positions (N = 4, 8, 16) or any permutation (N = 3, 5: "
            "the word problem of the symmetric group). Words of 16 tokens at scale small. "
            "Attention of constant depth is not expected to follow beyond short prefixes; a "
            "recurrence can be exact."
        ),
        backbones={Pattern.CAUSAL_SELF: "gpt2"},
        metrics=(
            Metric(
                name="accuracy",
                unit="1",
                higher_is_better=True,
                help="share of positions whose object is named, mean over steps and cases",
            ),
            Metric(
                name="cross_entropy",
                unit="nat",
                higher_is_better=False,
                help="of the object in a position, mean over steps and cases; zero for an exact "
                "tracker, so its ratios are not ranked",
                headline=False,
            ),
            *tuple(
                Metric(
                    name=f"accuracy_swaps_{objects}",
                    unit="1",
                    higher_is_better=True,
                    help=f"swaps of {objects} positions",
                    headline=False,
                )
                for objects in (4, 8, 16)
            ),
            *tuple(
                Metric(
                    name=f"accuracy_words_{objects}",
                    unit="1",
                    higher_is_better=True,
                    help=f"any permutation of {objects} positions",
                    headline=False,
                )
                for objects in (3, 5)
            ),
            *tuple(
                Metric(
                    name=f"accuracy_step_{step}",
                    unit="1",
                    higher_is_better=True,
                    help=f"after token {step}, mean over cases",
                    headline=False,
                )
                for step in (1, 2, 4, 8, 16, 32, 64)
            ),
        ),
        references=(
            Reference("tracker", metric="accuracy", help="a recurrence that keeps the state"),
            Reference(
                "memoryless",
                metric="accuracy",
                help="the best guess from the current token and its place alone",
            ),
            Reference("last-two", metric="accuracy", help="the best guess from the last two"),
            Reference("last-four", metric="accuracy", help="the best guess from the last four"),
            Reference("chance", metric="accuracy", help="any object"),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="generated",
        paper="Zuo et al., Local Linear Attention (permutation state tracking)",
        url="https://arxiv.org/abs/2510.01450",
        probe=True,
        fresh_evaluation=True,
    )
)
class StateTracking(GeneratedTask):
    """The running product of permutations.

    A GPT-2 of two layers with feed-forward layers; every case has letters of its own, so the first
    token tells the case. All positions of the state are read out at every step. With the control
    ``none`` a step knows its own letter and its place (reference ``memoryless``).
    """

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        self.setting = SETTINGS[scale]
        self._alphabets = [case.alphabet() for case in CASES]
        sizes = [len(alphabet) for alphabet in self._alphabets]
        self.first_letter = [sum(sizes[:index]) for index in range(len(sizes))]
        """By case: the token of its first letter"""
        self._letters = sum(sizes)

    @property
    def problem_settings(self) -> object:
        """See `cab.GeneratedTask.problem_settings`."""
        return CASES, self.setting.steps, self.setting.problems

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return self.setting.recipe

    def length(self) -> tuple[int, int]:
        """Tokens of a word."""
        return self.setting.steps, self.setting.steps

    def build(self, slots: Slots) -> nn.Module:
        """A GPT-2 that gives the odds of every object in every position; for its start see
        `tasks.state_tracking.model`.
        """
        setting = self.setting
        model = TokenTransformer(
            slots,
            self.pattern,
            tokens=self._letters,
            classes=MOST_OBJECTS**2,
            length=setting.steps,
            dim=setting.dim,
            heads=setting.heads,
            layers=setting.layers,
            position_base=100.0,
        )
        start_from_moves(model, CASES, MOST_OBJECTS)
        return model

    def draw(
        self, case: int, problems: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Fresh words of a case: their letters (B, T), and the batch of ``tokens`` (B, T) and
        ``states`` (B, T, N).
        """
        alphabet = self._alphabets[case]
        letters = draw_letters(problems, self.setting.steps, alphabet, generator)
        tokens = letters + self.first_letter[case]
        return letters, {"tokens": tokens, "states": track(letters, alphabet)}

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Fresh words of one case, drawn uniformly."""
        case = int(torch.randint(len(CASES), (), generator=generator))
        return self.draw(case, self.setting.recipe.batch_size, generator)[1]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross-entropy over steps and positions."""
        return F.cross_entropy(_logits(model, batch).flatten(0, 2), batch["states"].flatten())

    def causal_inputs(self) -> tuple[str, ...]:
        """See `cab.Task.causal_inputs`."""
        return ("tokens",)

    def causal_outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """(B, T, N^2) logits of every object in every position."""
        return model(batch["tokens"])

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """By case and by step, over words drawn from (split, seed)."""
        scores, by_step, nats = {}, [], []
        for case, _, batch in self.evaluated(split, seed):
            right, entropy = self._graded(model, batch)
            scores[f"accuracy_{case.name}"] = right.mean().item()
            by_step.append(right)
            nats.append(entropy)
        steps = torch.stack(by_step).mean(0)
        at_steps = {
            f"accuracy_step_{step}": steps[step - 1].item()
            for step in EVALUATED_STEPS
            if step <= self.setting.steps
        }
        return {
            "accuracy": steps.mean().item(),
            "cross_entropy": sum(nats) / len(nats),
            **scores,
            **at_steps,
        }

    def _graded(self, model: nn.Module, batch: Batch) -> tuple[Tensor, float]:
        """Share of positions named after each step (T,), and the mean cross-entropy."""
        batch = beside(model, batch)
        logits = torch.cat([_logits(model, part).float() for part in parts(batch, _AT_ONCE)])
        states = batch["states"]
        right = (logits.argmax(-1) == states).double().mean((0, 2))
        return right.cpu(), F.cross_entropy(logits.flatten(0, 2), states.flatten()).item()

    def evaluated(self, split: Split, seed: int) -> Iterator[tuple[Case, Tensor, Batch]]:
        """The words of a split: by case its letters (B, T) and its batch."""
        for index, case in enumerate(CASES):
            generator = seeds.evaluation(seed, split, case.name)
            yield case, *self.draw(index, self.setting.problems, generator)

    def references(self, seed: int) -> dict[str, float]:
        """What following the state scores, from the start or from the last letters only."""
        found: dict[str, list[float]] = {name: [] for name in ("tracker", *WINDOWS)}
        for case, letters, batch in self.evaluated("test", seed):
            alphabet = case.alphabet()
            guesses = {name: track_last(letters, alphabet, w) for name, w in WINDOWS.items()}
            for name, guess in {"tracker": track(letters, alphabet), **guesses}.items():
                found[name].append(share(guess == batch["states"]))
        chance = sum(1 / case.objects for case in CASES) / len(CASES)
        return {name: sum(x) / len(x) for name, x in found.items()} | {"chance": chance}

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """Accuracy over the length of the prefix, by case."""
        series: dict[str, dict[float, float]] = {}
        for case, _, batch in self.evaluated("test", seed):
            right, _ = self._graded(model, batch)
            label = f"{case.objects} positions, {case.kind}"
            series[label] = {step + 1: value for step, value in enumerate(right.tolist())}
        return [
            charts.curves(
                "accuracy-by-step",
                "Share of positions whose object is named after every token of a word; chance is "
                "1 by the number of positions.",
                series,
                x="token",
                y="accuracy",
            )
        ]


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    """(B, T, N, N) of every object in every position of the case."""
    objects = batch["states"].shape[-1]
    logits = model(batch["tokens"])
    square: Tensor = logits.unflatten(-1, (MOST_OBJECTS, MOST_OBJECTS))
    return square[..., :objects, :objects]
