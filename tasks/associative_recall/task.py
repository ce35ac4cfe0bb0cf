"""The task ``associative-recall``."""

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
from tasks.associative_recall.problem import (
    POWER,
    Vocabulary,
    draw_pairs,
    source_batch,
    stream_batch,
)
from tasks.backbones.multihead import MultiHeadAttention
from tasks.backbones.recall import SourceRecall, StreamRecall
from tasks.evaluation import beside, share
from tasks.problems.recall import (
    logits_everywhere,
    look_up,
    source_evidence,
    stream_evidence,
)


@dataclass(frozen=True)
class Setting:
    """Sizes of one scale."""

    vocabulary: Vocabulary
    pairs: tuple[int, ...]
    """Numbers of pairs, equally likely in training and each evaluated"""
    lengths: tuple[int, ...]
    """Lengths of a stream, equally likely in training where the pairs fit; all numbers of pairs
    are evaluated at the longest"""
    dim: int
    heads: int
    problems: int
    """Problems of one evaluation, per number of pairs"""
    recipe: Recipe


SETTINGS = {
    Scale.TINY: Setting(
        Vocabulary(32, 32),
        pairs=(4, 8, 16),
        lengths=(32, 64),
        dim=64,
        heads=4,
        problems=32,
        recipe=Recipe(steps=60, batch_size=16, learning_rate=3e-3, warmup_steps=10),
    ),
    Scale.SMALL: Setting(
        Vocabulary(256, 256),
        pairs=(4, 8, 16, 32, 64),
        lengths=(64, 128, 256),
        dim=48,
        heads=3,
        problems=64,
        recipe=Recipe(steps=600, batch_size=8, learning_rate=3e-3),
    ),
    Scale.BASE: Setting(
        Vocabulary(4096, 4096),
        pairs=(4, 8, 16, 32, 64, 128, 256),
        lengths=(256, 512, 1024),
        dim=256,
        heads=8,
        problems=128,
        recipe=Recipe(
            steps=4000,
            batch_size=64,
            learning_rate=1e-3,
            warmup_steps=200,
            evaluations=5,
            precision="bfloat16",
        ),
    ),
}

LENGTHS_OF = 16
"""Pairs whose accuracy is reported at every length"""


@register_task(
    TaskInfo(
        id="associative-recall",
        title="Associative recall",
        description=(
            "Multi-query associative recall: key-value pairs, then questions for the value of a "
            "key. Causal self: two layers over one stream. Cross: one layer from the questions to "
            "a source of pairs. No feed-forward layers, no convolutions; the backbone starts as "
            "the circuit that looks a key up, alike for every mechanism. At scale small 4 to 64 "
            "of 256 keys and 256 values, streams of 64 to 256 tokens."
        ),
        backbones={
            Pattern.CAUSAL_SELF: "two attention layers",
            Pattern.NONCAUSAL_CROSS: "one attention layer",
        },
        metrics=(
            Metric(
                name="accuracy",
                unit="1",
                higher_is_better=True,
                help="share of questions answered, mean over the numbers of pairs",
            ),
            Metric(
                name="cross_entropy",
                unit="nat",
                higher_is_better=False,
                help="of the value asked for, mean over the numbers of pairs; near zero where "
                "recall is perfect, so its ratios mean little",
                headline=False,
            ),
            *tuple(
                Metric(
                    name=f"accuracy_{pairs}_pairs",
                    unit="1",
                    higher_is_better=True,
                    help=f"with {pairs} pairs, in streams of the longest length",
                    headline=False,
                )
                for pairs in (4, 8, 16, 32, 64, 128, 256)
            ),
            *tuple(
                Metric(
                    name=f"accuracy_length_{length}",
                    unit="1",
                    higher_is_better=True,
                    help=f"with 16 pairs in streams of {length} tokens; longer streams hold more "
                    "blanks",
                    headline=False,
                )
                for length in (64, 128, 256, 512, 1024)
            ),
            Metric(
                name="state_size",
                unit="numbers",
                higher_is_better=False,
                help="kept per head and layer to decode on after the longest stream; only causal "
                "self, and only where the mechanism tells",
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
                "any-value-shown",
                metric="accuracy",
                help="any value of the problem: knows what was shown, not with which key",
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="generated",
        paper="Arora et al., Zoology: Measuring and Improving Recall in Efficient Language Models",
        url="https://arxiv.org/abs/2312.04927",
        probe=True,
        fresh_evaluation=True,
    )
)
class AssociativeRecall(GeneratedTask):
    """Values of keys that were shown before.

    With the control ``none`` nothing of the pairs reaches a question.
    """

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        self.setting = SETTINGS[scale]

    @property
    def problem_settings(self) -> object:
        """See `cab.GeneratedTask.problem_settings`."""
        setting = self.setting
        return POWER, setting.vocabulary, setting.pairs, setting.lengths, setting.problems

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return self.setting.recipe

    def length(self) -> tuple[int, int]:
        """Tokens of the longest stream; in cross attention the most questions and pairs."""
        longest = max(self.setting.pairs if self.pattern.cross else self.setting.lengths)
        return longest, longest

    def build(self, slots: Slots) -> nn.Module:
        """See `tasks.backbones.recall`."""
        setting = self.setting
        backbone = SourceRecall if self.pattern.cross else StreamRecall
        return backbone(
            slots,
            tokens=setting.vocabulary.tokens,
            classes=setting.vocabulary.values,
            dim=setting.dim,
            heads=setting.heads,
            max_length=self.length()[0],
        )

    def draw(
        self, problems: int, pairs: int, length: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Fresh problems in the form that the pattern needs; a source has no ``length``."""
        vocabulary = self.setting.vocabulary
        drawn = draw_pairs(problems, pairs, vocabulary, generator)
        if self.pattern.cross:
            return source_batch(drawn, vocabulary, generator)
        return stream_batch(drawn, length, vocabulary, generator)

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Fresh problems of one number of pairs and one length, both drawn uniformly."""
        setting = self.setting
        pairs = _one_of(setting.pairs, generator)
        fitting = tuple(length for length in setting.lengths if length >= 4 * pairs)
        return self.draw(setting.recipe.batch_size, pairs, _one_of(fitting, generator), generator)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross-entropy of the values asked for."""
        return F.cross_entropy(_logits(model, batch).flatten(0, 1), batch["targets"].flatten())

    def evidence(self, batch: Batch) -> Evidence:
        """The value of the key that is asked for; in cross attention its pair."""
        if self.pattern.cross:
            return source_evidence(batch["keys"], batch["asked"])
        return stream_evidence(batch["tokens"], batch["read"])

    def causal_inputs(self) -> tuple[str, ...]:
        """See `cab.Task.causal_inputs`."""
        return ("tokens",) if not self.pattern.cross else ()

    def causal_outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """(B, L, V) logits at every place, asked or not."""
        return logits_everywhere(model, batch["tokens"])

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """By number of pairs and by length, over problems drawn from (split, seed)."""
        scores: dict[str, float] = {}
        nats, accuracies = [], []
        for pairs, length, batch in self.evaluated(split, seed):
            batch = beside(model, batch)
            logits = _logits(model, batch).float()
            targets = batch["targets"]
            accuracy = share(logits.argmax(-1) == targets)
            if length == max(self.setting.lengths):
                scores[f"accuracy_{pairs}_pairs"] = accuracy
                accuracies.append(accuracy)
                nats.append(F.cross_entropy(logits.flatten(0, 1), targets.flatten()).item())
            if pairs == LENGTHS_OF and not self.pattern.cross:
                scores[f"accuracy_length_{length}"] = accuracy
        scores["accuracy"] = sum(accuracies) / len(accuracies)
        scores["cross_entropy"] = sum(nats) / len(nats)
        if isinstance(model, StreamRecall):
            size = state_size(model, max(self.setting.lengths))
            scores |= {} if size is None else {"state_size": size}
        return scores

    def evaluated(self, split: Split, seed: int) -> Iterator[tuple[int, int, dict[str, Tensor]]]:
        """(pairs, length, batch): all pairs at the longest length, `LENGTHS_OF` at the others."""
        setting = self.setting
        *shorter, longest = setting.lengths
        cases = [(pairs, longest) for pairs in setting.pairs]
        if not self.pattern.cross:
            cases += [(LENGTHS_OF, length) for length in shorter if length >= 4 * LENGTHS_OF]
        for pairs, length in cases:
            generator = seeds.evaluation(seed, split, pairs, length)
            yield pairs, length, self.draw(setting.problems, pairs, length, generator)

    def references(self, seed: int) -> dict[str, float]:
        """What a table, a guess and a guess among the shown values score."""
        setting = self.setting
        found = []
        for _, length, batch in self.evaluated("test", seed):
            if self.pattern.cross:
                stream = torch.stack([batch["keys"], batch["values"]], -1).flatten(1)
                stream = torch.cat([stream, batch["asked"]], 1)
                read = torch.arange(stream.shape[1] - batch["asked"].shape[1], stream.shape[1])
                answers = look_up(stream, read.expand_as(batch["asked"]))
            elif length == max(setting.lengths):
                answers = look_up(batch["tokens"], batch["read"])
            else:
                continue
            found.append(share(answers - setting.vocabulary.first_value == batch["targets"]))
        return {
            "look-up": sum(found) / len(found),
            "chance": 1 / setting.vocabulary.values,
            "any-value-shown": sum(1 / pairs for pairs in setting.pairs) / len(setting.pairs),
        }

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """Accuracy over the number of pairs."""
        scores = self.evaluate(model, "test", seed)
        pairs = self.setting.pairs
        return [
            charts.curves(
                "accuracy-by-pairs",
                "Share of questions answered by the number of pairs to be kept apart.",
                {
                    "model": {n: scores[f"accuracy_{n}_pairs"] for n in pairs},
                    "any value shown": {n: 1 / n for n in pairs},
                },
                x="pairs",
                y="accuracy",
                doubling=True,
            )
        ]


def state_size(model: StreamRecall, length: int) -> float | None:
    """Numbers kept per head and layer after ``length`` tokens; None where a mechanism cannot tell.

    A leaderboard's x-axis for recall: what is remembered, against what it is remembered in.
    """
    total, heads = 0, 0
    for module in model.modules():
        if isinstance(module, MultiHeadAttention):
            try:
                total += module.core.state_size(length)
            except NotImplementedError:
                return None
            heads += module.heads
    return total / heads


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    if isinstance(model, SourceRecall):
        return model(batch["asked"], batch["keys"], batch["values"])
    return model(batch["tokens"], batch["read"])


def _one_of(choices: tuple[int, ...], generator: torch.Generator) -> int:
    return choices[int(torch.randint(len(choices), (), generator=generator))]
