"""What every summarisation task shares: batches, loss, likelihood, ROUGE and samples."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cab import Artifact, Batch, Pattern, Recipe, Scale, Slots, Task, seeds
from cab.task_contract import Split
from tasks.artifacts import pictures
from tasks.summarization.corpus import Corpus, Representation
from tasks.summarization.decoding import greedy
from tasks.summarization.encoder_decoder import EncoderDecoder
from tasks.summarization.rouge import rouge

EVERY = 1 << 31
"""More documents than any split has."""

_SHOWN = 4
_PART = 8
"""Documents that a witness has decoded"""
"""Test documents whose summaries are kept."""


@dataclass(frozen=True)
class Setting:
    """How a model is trained and evaluated at one scale."""

    recipe: Recipe
    longest: int
    """Tokens after which an output is cut."""
    shortest: int = 0
    """Tokens before which an output does not end."""
    smoothing: float = 0.0
    """Share of the training target that is spread over all tokens (Szegedy et al. 2016)."""
    decoded: int = EVERY
    """Test documents that are decoded for ROUGE."""
    validated: int = EVERY
    """Validation documents."""
    evaluation_batch: int = 32


class SummaryTask(Task):
    """Encoder-decoder with candidates in the encoder's self attention (NS), the decoder's self
    attention (CS) or its cross attention (CC).
    """

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        self.representation = self.represent()

    @abstractmethod
    def represent(self) -> Representation:
        """Read the data at this scale."""

    @property
    @abstractmethod
    def setting(self) -> Setting:
        """Training and evaluation at this scale."""

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return self.setting.recipe

    def corpus(self, split: str) -> Corpus:
        """One split."""
        return self.representation.corpora[split]

    def length(self) -> tuple[int, int]:
        """Tokens of the longest target or source, by where the pattern's slots are."""
        corpora = self.representation.corpora.values()
        target = max(corpus.target_length for corpus in corpora) - 1
        source = max(corpus.source_length for corpus in corpora)
        if self.pattern is Pattern.NONCAUSAL_SELF:
            return source, source
        return target, source if self.pattern.cross else target

    def build(self, slots: Slots) -> nn.Module:
        """See `cab.Task.build`."""
        return self.representation.build(slots)

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Distinct random pairs; placeholders and field order, where there are any, are fresh."""
        corpus = self.corpus("train")
        rows = torch.randperm(len(corpus), generator=generator)[: self.recipe.batch_size]
        return corpus.batch(rows, generator)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross entropy of the target tokens."""
        scores, wanted = model(batch)
        return F.cross_entropy(scores, wanted, label_smoothing=self.setting.smoothing)

    def causal_inputs(self) -> tuple[str, ...]:
        """See `cab.Task.causal_inputs`."""
        return ("target",) if self.pattern.causal else ()

    def causal_outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """(B, T, V) scores of the token after each of the target's."""
        assert isinstance(model, EncoderDecoder)
        return model.logits(model.decode(batch["target"][:, :-1], *model.encode(batch)))

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """Likelihoods of the split; on the test split also ROUGE of greedy outputs."""
        assert isinstance(model, EncoderDecoder)
        scores = self._likelihoods(model, split)
        if split == "test":
            scores |= rouge(*self._summaries(model, self.setting.decoded))
        return scores

    def reduced(self) -> Self:
        """See `cab.Task.reduced`; writing summaries word by word takes its time."""
        part = copy.copy(self)
        fewer = lambda model, most: self._summaries(model, min(most, _PART))  # noqa: E731 - a function of this call
        part._summaries = fewer  # type: ignore[method-assign]  # of this copy alone
        return part

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """Summaries of a few test documents, by greedy decoding, with the references."""
        assert isinstance(model, EncoderDecoder)
        pieces = (
            f"output     {output}\nreference  {reference}"
            for output, reference in zip(*self._summaries(model, _SHOWN), strict=True)
        )
        caption = "Greedy summaries of test documents, and their references."
        return [pictures.text("summaries", caption, "\n\n".join(pieces))]

    def _likelihoods(self, model: EncoderDecoder, split: Split) -> dict[str, float]:
        base = self.representation.entity_base
        losses: list[Tensor] = []
        entities: list[Tensor] = []
        rows = torch.arange(len(self.corpus(split)))
        if split == "validation":
            rows = rows[: self.setting.validated]
        for _, batch in self._fixed_batches(split, rows, model.device):
            scores, wanted = model(batch)
            losses.append(F.cross_entropy(scores, wanted, reduction="none").cpu())
            if base is not None:
                entities.append((wanted >= base).cpu())
        loss = torch.cat(losses)
        found = {"nll": loss.mean().item()}
        if entities:
            found["entity_nll"] = loss[torch.cat(entities)].mean().item()
        return found

    def _summaries(self, model: EncoderDecoder, most: int) -> tuple[list[str], list[str]]:
        """Greedy outputs of test documents spread over the split, and the references."""
        corpus = self.corpus("test")
        count = min(most, len(corpus))
        spread = torch.linspace(0, len(corpus) - 1, count, dtype=torch.float64).round().long()
        outputs: list[str] = []
        for rows, batch in self._fixed_batches("test", spread, model.device):
            ids = greedy(model, batch, self.setting.longest, self.setting.shortest)
            outputs += corpus.texts(rows, ids, batch)
        return outputs, [corpus.reference(row) for row in spread.tolist()]

    def _fixed_batches(
        self, split: Split, rows: Tensor, device: torch.device
    ) -> Iterator[tuple[list[int], Batch]]:
        """Row numbers and pairs; placeholders and order of fields are the same in every run."""
        generator = seeds.evaluation(0, split)
        for part in torch.split(rows, self.setting.evaluation_batch):
            drawn = self.corpus(split).batch(part, generator)
            yield part.tolist(), {name: tensor.to(device) for name, tensor in drawn.items()}
