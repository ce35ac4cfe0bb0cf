"""Marked symbol: at the end of a stream, name the one symbol in it that was marked.

The symbols of a stream are uniform, and so is the place of the mark; a question follows. One layer
that attends to the mark can answer. Without attention the question knows nothing of the stream.
Tokens are the symbols, the same symbols marked, and the question.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cab import (
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
from tasks.backbones.token_transformer import TokenTransformer
from tasks.evaluation import device_of, share

SYMBOLS, QUESTION = 16, 32
LENGTHS = {Scale.TINY: 32, Scale.SMALL: 128}
PROBLEMS = 256


@register_task(
    TaskInfo(
        id="marked-symbol",
        title="Marked symbol",
        description="Which of 16 symbols was marked in a stream of 128 (scale small).",
        backbones={Pattern.CAUSAL_SELF: "gpt2"},
        metrics=(
            Metric("accuracy", "1", True, "Share of marked symbols that are named."),
            Metric("accuracy_double", "1", True, "In streams twice as long.", headline=False),
        ),
        references=(Reference("chance", "accuracy", "Any symbol."),),
        scales=(Scale.TINY, Scale.SMALL),
        dataset="generated",
        probe=True,
    )
)
class MarkedSymbol(GeneratedTask):
    """One symbol, told by its mark."""

    @property
    def lengths(self) -> dict[str, int]:
        """Of the streams that are evaluated, by metric."""
        return {"accuracy": LENGTHS[self.scale], "accuracy_double": 2 * LENGTHS[self.scale]}

    @property
    def problem_settings(self) -> object:
        """See `cab.GeneratedTask.problem_settings`."""
        return SYMBOLS, self.lengths, PROBLEMS

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return Recipe(steps=300, batch_size=32, learning_rate=3e-3, warmup_steps=20)

    def length(self) -> tuple[int, int]:
        """See `cab.Task.length`."""
        return (self.lengths["accuracy_double"] + 1,) * 2

    def build(self, slots: Slots) -> nn.Module:
        """See `cab.Task.build`."""
        trained, longest = (length + 1 for length in self.lengths.values())
        return TokenTransformer(
            slots, self.pattern, tokens=QUESTION + 1, classes=SYMBOLS, length=trained,
            dim=32, heads=2, layers=1, position_amplitude=0.1, longest=longest,
        )  # fmt: skip

    def draw(self, problems: int, length: int, generator: torch.Generator) -> Batch:
        """``tokens`` (B, length + 1), the question last, and ``targets`` (B,)."""
        symbols = torch.randint(SYMBOLS, (problems, length), generator=generator)
        place = torch.randint(length, (problems, 1), generator=generator)
        marked = symbols.gather(1, place)
        tokens = F.pad(symbols.scatter(1, place, SYMBOLS + marked), (0, 1), value=QUESTION)
        return {"tokens": tokens, "targets": marked[:, 0]}

    def training_batch(self, generator: torch.Generator) -> Batch:
        """See `cab.Task.training_batch`."""
        return self.draw(self.recipe.batch_size, self.lengths["accuracy"], generator)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """See `cab.Task.loss`."""
        return F.cross_entropy(model(batch["tokens"])[:, -1], batch["targets"])

    def causal_inputs(self) -> tuple[str, ...]:
        """See `cab.Task.causal_inputs`."""
        return ("tokens",)

    def causal_outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """See `cab.Task.causal_outputs`."""
        return model(batch["tokens"])

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """See `cab.Task.evaluate`."""
        scores = {}
        for name, length in self.lengths.items():
            batch = self.draw(PROBLEMS, length, seeds.evaluation(seed, split, length))
            scores[name] = share(_named(model, batch) == batch["targets"])
        return scores

    def references(self, seed: int) -> dict[str, float]:
        """See `cab.Task.references`."""
        return {"chance": 1 / SYMBOLS}


def _named(model: nn.Module, batch: Batch) -> Tensor:
    return model(batch["tokens"].to(device_of(model)))[:, -1].argmax(-1).cpu()
