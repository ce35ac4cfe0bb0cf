"""The task ``passkey``."""

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
from cab.analysis import Evidence
from cab.task_contract import Split
from tasks.artifacts import charts
from tasks.evaluation import beside, parts, share
from tasks.passkey.effective_length import effective_length, effective_length_interval
from tasks.passkey.model import PlacedRecall
from tasks.passkey.problem import Haystack, draw_places, draw_places_spread, draw_streams
from tasks.problems.recall import look_up, stream_evidence


@dataclass(frozen=True)
class Setting:
    """Sizes of one scale."""

    haystack: Haystack
    trained: tuple[int, ...]
    """Lengths evaluated within training, which draws from all between them"""
    beyond: tuple[int, ...]
    """Lengths that are only evaluated"""
    dim: int
    heads: int
    questions: int
    """At the end of every stream"""
    streams: int
    """Of one evaluation, per length"""
    recipe: Recipe

    @property
    def lengths(self) -> tuple[int, ...]:
        """All that are evaluated."""
        return self.trained + self.beyond


SETTINGS = {
    Scale.TINY: Setting(
        Haystack(filler=16, keys=16, values=16, needles=8),
        trained=(32, 64),
        beyond=(128,),
        dim=64,
        heads=4,
        questions=4,
        streams=32,
        recipe=Recipe(steps=80, batch_size=32, learning_rate=3e-3, warmup_steps=10, evaluations=2),
    ),
    Scale.SMALL: Setting(
        Haystack(filler=32, keys=64, values=64, needles=16),
        trained=(64, 128, 256),
        beyond=(512, 1024),
        dim=48,
        heads=3,
        questions=8,
        streams=48,
        recipe=Recipe(steps=500, batch_size=16, learning_rate=3e-3, evaluations=2),
    ),
    Scale.BASE: Setting(
        Haystack(filler=1024, keys=1024, values=1024, needles=32),
        trained=(256, 512, 1024),
        beyond=(2048, 4096),
        dim=256,
        heads=8,
        questions=16,
        streams=64,
        recipe=Recipe(
            steps=4000,
            batch_size=64,
            learning_rate=1e-3,
            warmup_steps=200,
            evaluations=4,
            precision="bfloat16",
        ),
    ),
}

_TOKENS_AT_ONCE = 16_384
"""At most, in one forward pass of evaluation"""


@register_task(
    TaskInfo(
        id="passkey",
        title="Passkey retrieval",
        description=(
            "Needles (key, value) hidden in filler; the last tokens ask for the values of some of "
            "the keys. Two attention layers that start as the circuit that looks a key up, alike "
            "for every mechanism. Trained on lengths up to 256 at scale small, tested up to 1024, "
            "with needles at all depths and streams that begin anywhere."
        ),
        backbones={Pattern.CAUSAL_SELF: "two attention layers"},
        metrics=(
            Metric(
                name="accuracy",
                unit="1",
                higher_is_better=True,
                help="share of values retrieved, mean over depths and the trained lengths",
            ),
            Metric(
                name="cross_entropy",
                unit="nat",
                higher_is_better=False,
                help="of the values asked for, likewise; near zero where retrieval is perfect, so "
                "its ratios mean little",
                headline=False,
            ),
            Metric(
                name="accuracy_beyond",
                unit="1",
                higher_is_better=True,
                help="share of values retrieved, mean over depths and the lengths beyond training",
                headline=False,
            ),
            *tuple(
                Metric(
                    name=f"accuracy_{length}",
                    unit="1",
                    higher_is_better=True,
                    help=f"in {length} tokens, mean over depths",
                    headline=False,
                )
                for length in (32, 64, 128, 256, 512, 1024, 2048, 4096)
            ),
            Metric(
                name="effective_length",
                unit="token",
                higher_is_better=True,
                help="tokens of a context that are at hand: its length times the share of values "
                "retrieved, guesses among the needles taken off; the largest over tested lengths",
                headline=False,
            ),
            Metric(
                name="effective_length_low",
                unit="token",
                higher_is_better=True,
                help="lower end of its 95 % bootstrap interval over test streams",
                headline=False,
            ),
            Metric(
                name="effective_length_high",
                unit="token",
                higher_is_better=True,
                help="upper end of that interval",
                headline=False,
            ),
        ),
        references=(
            Reference(
                "look-up",
                metric="accuracy",
                help="the token behind the first occurrence of the key",
            ),
            Reference("chance", metric="accuracy", help="any value of the vocabulary"),
            Reference(
                "any-needle",
                metric="accuracy",
                help="the value of any needle: sees what sticks out, not what is asked for",
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="generated",
        paper="Mohtashami and Jaggi, Landmark Attention: Random-Access Infinite Context Length for "
        "Transformers (passkey retrieval)",
        url="https://arxiv.org/abs/2305.16300",
        probe=True,
        fresh_evaluation=True,
    )
)
class Passkey(GeneratedTask):
    """One value out of a haystack.

    With the control ``none`` nothing of the needles reaches the question. Places are sinusoids that
    are not trained, and streams begin at any of them, so lengths beyond training meet no untrained
    parameter and no unseen place.
    """

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        self.setting = SETTINGS[scale]

    @property
    def problem_settings(self) -> object:
        """See `cab.GeneratedTask.problem_settings`."""
        setting = self.setting
        lengths = setting.trained, setting.beyond
        return setting.haystack, lengths, setting.questions, setting.streams

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return self.setting.recipe

    def length(self) -> tuple[int, int]:
        """Tokens of the longest stream, one beyond training."""
        longest = max(self.setting.lengths)
        return longest, longest

    def build(self, slots: Slots) -> nn.Module:
        """See `tasks.passkey.model`."""
        setting = self.setting
        return PlacedRecall(
            slots,
            tokens=setting.haystack.tokens,
            classes=setting.haystack.values,
            dim=setting.dim,
            heads=setting.heads,
            max_length=max(setting.lengths),
        )

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Fresh streams of one even length, uniform between the shortest and the longest.

        Were there but a few lengths, the places where they end would be learned by heart, and
        needles that stand there in longer streams not be found.
        """
        setting = self.setting
        shortest, longest = min(setting.trained) // 2, max(setting.trained) // 2
        length = 2 * int(torch.randint(shortest, longest + 1, (), generator=generator))
        batch = setting.recipe.batch_size
        starts = draw_places(batch, length, setting.questions, setting.haystack, generator)
        return self._streams(starts, length, generator)

    def _streams(
        self, starts: Tensor, length: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        setting = self.setting
        longest = max(setting.lengths)
        return draw_streams(starts, length, setting.questions, setting.haystack, generator, longest)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross-entropy of the values asked for."""
        logits = model(batch["tokens"], batch["read"], batch["first"])
        return F.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten())

    def evidence(self, batch: Batch) -> Evidence:
        """The values of the needles that are asked for."""
        return stream_evidence(batch["tokens"], batch["read"])

    def causal_inputs(self) -> tuple[str, ...]:
        """See `cab.Task.causal_inputs`."""
        return ("tokens",)

    def causal_outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """(B, L, V) logits at every token, asked or not."""
        tokens = batch["tokens"]
        every = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        return model(tokens, every, batch["first"])

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """Over the lengths, on streams drawn from (split, seed).

        Lengths beyond training belong to the test split; validation stays within.
        """
        setting = self.setting
        right: dict[int, Tensor] = {}
        nats = []
        for length, batch, _ in self.evaluated(split, seed):
            right[length], entropy = _graded(model, batch)
            if length in setting.trained:
                nats.append(entropy)
        accuracy = {length: share(hits) for length, hits in right.items()}
        scores = {
            "accuracy": _mean(accuracy, setting.trained),
            "cross_entropy": sum(nats) / len(nats),
            **{f"accuracy_{length}": value for length, value in accuracy.items()},
        }
        if split == "validation":
            return scores
        guess = self._any_needle
        generator = seeds.evaluation(seed, split, "bootstrap")
        low, high = effective_length_interval(right, guess, generator)
        return {
            **scores,
            "accuracy_beyond": _mean(accuracy, setting.beyond),
            "effective_length": effective_length(accuracy, guess),
            "effective_length_low": low,
            "effective_length_high": high,
        }

    @property
    def _any_needle(self) -> float:
        """Accuracy of naming the value of any needle: what a model does that retrieves nothing."""
        return 1 / self.setting.haystack.needles

    def evaluated(self, split: Split, seed: int) -> Iterator[tuple[int, dict[str, Tensor], Tensor]]:
        """By length: streams, and (B, questions) the part of the stream that a question asks of."""
        setting = self.setting
        for length in setting.lengths if split == "test" else setting.trained:
            generator = seeds.evaluation(seed, split, length)
            starts, part = draw_places_spread(
                setting.streams, length, setting.questions, setting.haystack, generator
            )
            yield length, self._streams(starts, length, generator), part

    def references(self, seed: int) -> dict[str, float]:
        """What a table, a guess and a guess among the needles score."""
        haystack = self.setting.haystack
        found = []
        for length, batch, _ in self.evaluated("test", seed):
            if length in self.setting.trained:
                answers = look_up(batch["tokens"], batch["read"]) - haystack.first_value
                found.append(share(answers == batch["targets"]))
        return {
            "look-up": sum(found) / len(found),
            "chance": 1 / haystack.values,
            "any-needle": self._any_needle,
        }

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """The heat map of accuracy over length and depth."""
        questions = self.setting.questions
        grid: dict[int, list[float]] = {}
        for length, batch, part in self.evaluated("test", seed):
            right = _graded(model, batch)[0].double()
            # Every stream asks once of each part of it.
            grid[length] = right.gather(1, part.argsort(1)).mean(0).tolist()
        table: dict[charts.Level, dict[charts.Level, float]] = {
            f"{row / questions:.0%} to {(row + 1) / questions:.0%}": {
                length: grid[length][row] for length in grid
            }
            for row in range(questions)
        }
        return [
            charts.heat(
                "length-and-depth",
                "Share of values retrieved by the length of the stream and the depth of the needle "
                f"(0 %: the start); trained up to {max(self.setting.trained)} tokens, "
                f"{self.setting.streams} test problems a cell.",
                table,
                x="tokens",
                y="depth",
            )
        ]


def _graded(model: nn.Module, batch: Batch) -> tuple[Tensor, float]:
    """(streams, questions) whether the value was retrieved, and the mean cross-entropy."""
    rows = max(1, _TOKENS_AT_ONCE // batch["tokens"].shape[1])
    asked = (beside(model, part) for part in parts(batch, rows))
    logits = torch.cat([model(x["tokens"], x["read"], x["first"]).float().cpu() for x in asked])
    right = logits.argmax(-1) == batch["targets"]
    entropy = F.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten())
    return right, entropy.item()


def _mean(values: dict[int, float], of: tuple[int, ...]) -> float:
    return sum(values[key] for key in of) / len(of)
