"""The task ``summarization``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
from cab.task_contract import Split
from tasks import pictures
from tasks.summarization.corpus import Corpus
from tasks.summarization.countries import FIELDS, hash_countries, read_countries
from tasks.summarization.decoding import greedy, rouge_l, texts
from tasks.summarization.model import Sizes, Summarizer
from tasks.summarization.plain_files import FIELD, hash_plain_files, read_plain_files
from tasks.summarization.vocabulary import Vocabulary

SOURCE_WORDS = 128
"""Plain documents are cut here; a country's fields are cut one by one, at 140 together."""

TARGET_WORDS = 62

VOCABULARY_WORDS = 400

PLACEHOLDERS = 128

EVALUATION_BATCH = 32

EVALUATION_SEED = 7
"""Placeholders and field order at evaluation are the same in every run."""

_SHOWN = 4
"""Test documents whose summaries are kept."""


@dataclass(frozen=True)
class Setting:
    """Sizes of one scale."""

    sizes: Sizes
    steps: int
    batch_size: int
    decoded: int
    """Test documents that are decoded for ROUGE."""
    pairs: int
    """Pairs read per split of plain files."""
    evaluations: int


SETTINGS = {
    Scale.TINY: Setting(
        Sizes(dim=32, heads=2, layers=1),
        steps=60,
        batch_size=8,
        decoded=8,
        pairs=200,
        evaluations=2,
    ),
    Scale.SMALL: Setting(
        Sizes(dim=64, heads=4, layers=2),
        steps=400,
        batch_size=8,
        decoded=32,
        pairs=5000,
        evaluations=3,
    ),
}


@register_task(
    TaskInfo(
        id="summarization",
        title="Summarisation (table to text)",
        description=(
            "An encoder-decoder writes a short text from a long source. The embedded data is "
            "table-to-text, not human summarisation: 14 fields of a country's World Factbook "
            "entry to sentences of a fixed template, countries split between training, "
            "validation and test. Words that are rare in training are anonymised to placeholders "
            "drawn afresh at each use, so that names must be copied from the source. The control "
            "none is a decoder that cannot see the source (causal cross) or only its current "
            "token of the text so far (causal self)."
        ),
        backbones={Pattern.CAUSAL_SELF: "transformer", Pattern.CAUSAL_CROSS: "transformer"},
        metrics=(
            Metric(
                name="nll",
                unit="nat/token",
                higher_is_better=False,
                help="negative log-likelihood of the summary, teacher-forced, per token",
            ),
            Metric(
                name="entity_nll",
                unit="nat/token",
                higher_is_better=False,
                help="the same over placeholder tokens: names that must be copied",
            ),
            Metric(
                name="rouge_l",
                unit="%",
                higher_is_better=True,
                help=(
                    "ROUGE-L F1 of greedy outputs (first 32 test documents at scale small, 8 at "
                    "tiny); varies much between seeds, and the template's words alone score"
                ),
                headline=False,
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL),
        dataset="world-factbook",
        data_dir=(
            "train.src, train.tgt, val.src, val.tgt, test.src, test.tgt as in Multi-News: UTF-8, "
            "one document or summary a line, line n of .tgt belonging to line n of .src. "
            "Documents are cut at 128 words, summaries at 62, and the first 5000 pairs of a split "
            "are read at scale small (200 at tiny)."
        ),
        differences="text generated from table fields, not summaries of news, words beyond the "
        "commonest ones as placeholders, and a model of two layers: on a CPU in half a minute, "
        "human-written summaries of this data do not tell attention from none; the encoder's "
        "self-attention is no slot here because it makes no difference",
        paper="Fabbri et al., Multi-News (CAB's data set for this task)",
        url="https://arxiv.org/abs/1906.01749",
    )
)
class Summarization(Task):
    """Encoder-decoder with candidates in the decoder's self or cross attention.

    The encoder's self attention is no slot: on this data it makes no difference.
    """

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        self.setting = SETTINGS[scale]
        self.fields: tuple[str, ...] = FIELDS if data_dir is None else (FIELD,)
        if data_dir is None:
            splits = read_countries(TARGET_WORDS)
        else:
            splits = read_plain_files(
                data_dir,
                source_words=SOURCE_WORDS,
                target_words=TARGET_WORDS,
                pairs=self.setting.pairs,
            )
        self.vocabulary = Vocabulary.of(splits["train"], VOCABULARY_WORDS, PLACEHOLDERS)
        self.corpora = {
            split: Corpus(pairs, self.vocabulary, self.fields) for split, pairs in splits.items()
        }
        self._evaluation: dict[Split, list[Batch]] = {
            "validation": self._fixed_batches("validation"),
            "test": self._fixed_batches("test"),
        }

    @property
    def data_hash(self) -> str:
        """Of the embedded table or of the six plain files."""
        return hash_countries() if self.data_dir is None else hash_plain_files(self.data_dir)

    @property
    def recipe(self) -> Recipe:
        """The rate is high for a Transformer; the start as copies makes it safe."""
        return Recipe(
            steps=self.setting.steps,
            batch_size=self.setting.batch_size,
            learning_rate=3e-3,
            evaluations=self.setting.evaluations,
        )

    def length(self) -> tuple[int, int]:
        """Tokens of the longest target and, in cross attention, of the longest source."""
        target = max(corpus.target_length for corpus in self.corpora.values()) - 1
        source = max(corpus.source_length for corpus in self.corpora.values())
        return target, source if self.pattern.cross else target

    def build(self, slots: Slots) -> nn.Module:
        """The encoder-decoder."""
        return Summarizer(
            slots,
            self.setting.sizes,
            vocabulary=len(self.vocabulary),
            fields=len(self.fields),
            source_length=max(corpus.source_length for corpus in self.corpora.values()),
            target_length=TARGET_WORDS + 1,
        )

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Distinct random pairs with fresh placeholders."""
        corpus = self.corpora["train"]
        rows = torch.randperm(len(corpus), generator=generator)[: self.setting.batch_size]
        return corpus.batch(rows, generator)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross entropy of the target tokens."""
        scores, wanted = model(batch)
        return F.cross_entropy(scores, wanted)

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """``nll`` and ``entity_nll`` of the whole split; on the test split also ``rouge_l``."""
        assert isinstance(model, Summarizer)
        device = model.embedding.weight.device
        batches = [
            {name: tensor.to(device) for name, tensor in batch.items()}
            for batch in self._evaluation[split]
        ]
        losses, entities = [], []
        overlaps: list[float] = []
        decoded = self.setting.decoded if split == "test" else 0
        for batch in batches:
            scores, wanted = model(batch)
            losses.append(F.cross_entropy(scores, wanted, reduction="none"))
            entities.append(wanted >= self.vocabulary.entity_base)
            if decoded > len(overlaps):
                part = {name: tensor[: decoded - len(overlaps)] for name, tensor in batch.items()}
                outputs = greedy(model, part, TARGET_WORDS)
                overlaps += map(rouge_l, outputs, texts(part["target"]))
        loss, entity = torch.cat(losses), torch.cat(entities)
        metrics = {"nll": loss.mean().item(), "entity_nll": loss[entity].mean().item()}
        if overlaps:
            metrics["rouge_l"] = sum(overlaps) / len(overlaps)
        return metrics

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """Summaries of the first test documents, by greedy decoding, with the references."""
        assert isinstance(model, Summarizer)
        corpus = self.corpora["test"]
        rows = torch.arange(min(_SHOWN, len(corpus)))
        drawn = corpus.batch(rows, torch.Generator().manual_seed(EVALUATION_SEED))
        device = model.embedding.weight.device
        batch = {name: tensor.to(device) for name, tensor in drawn.items()}
        outputs = greedy(model, batch, TARGET_WORDS)
        pieces = []
        for row, output in zip(rows.tolist(), outputs, strict=True):
            own = drawn["placeholders"][row].tolist()
            pieces.append(
                f"output     {' '.join(corpus.words(row, output, own))}\n"
                f"reference  {' '.join(corpus.words(row, texts(drawn['target'])[row], own))}"
            )
        caption = "Greedy summaries of test documents, and their references."
        return [pictures.text("summaries", caption, "\n\n".join(pieces))]

    def _fixed_batches(self, split: Split) -> list[Batch]:
        generator = torch.Generator().manual_seed(EVALUATION_SEED)
        corpus = self.corpora[split]
        rows = torch.split(torch.arange(len(corpus)), EVALUATION_BATCH)
        return [corpus.batch(part, generator) for part in rows]
