"""The task ``summarization``: CAB's, on the data that is at hand.

At scale paper it is CAB's setting: ParaGen's Transformer over subwords, sources of 4096 tokens,
targets of 400, 64 documents a step (4 GPUs of 8, two batches a step). CAB trains in fp16 and takes
the last checkpoint; here it is bfloat16 and the best of five, one each 10,000 steps, by validation.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cab import Metric, Pattern, Recipe, Scale, TaskInfo, register_task
from cab.errors import DataError
from tasks.data.embedded import SPLITS
from tasks.summarization.anonymised_words import AnonymisedWords
from tasks.summarization.backgrounds import read_backgrounds
from tasks.summarization.corpus import Representation
from tasks.summarization.countries import FIELDS, hash_countries, read_countries
from tasks.summarization.encoder_decoder import Sizes
from tasks.summarization.pairs import Pair, Splits, TextPair
from tasks.summarization.plain_files import (
    SEPARATOR,
    folder_problems,
    hash_plain_files,
    read_pairs,
)
from tasks.summarization.subword_text import SubwordText
from tasks.summarization.subwords import has_bart_files, read_bart_files
from tasks.summarization.summary_task import Setting, SummaryTask
from tasks.summarization.words import words

DOCUMENT = "document"
"""The one field of plain text."""


@dataclass(frozen=True)
class Reading:
    """What is kept of the data as anonymised words."""

    words: int
    """Common words that are tokens."""
    placeholders: int
    source_words: int
    """Words of a field, after which it is cut; plain text is one field."""
    target_words: int
    pairs: int
    """Of a split, read from plain files."""


_SIZES = {
    Scale.TINY: Sizes(dim=32, heads=2, layers=1),
    Scale.SMALL: Sizes(dim=64, heads=4, layers=2),
    Scale.BASE: Sizes(dim=256, heads=8, layers=4, expansion=4),
}

_COUNTRIES = {
    Scale.TINY: Reading(400, 128, source_words=10, target_words=62, pairs=0),
    Scale.SMALL: Reading(400, 128, source_words=10, target_words=62, pairs=0),
    Scale.BASE: Reading(400, 320, source_words=24, target_words=62, pairs=0),
}

_PLAIN_FILES = {
    Scale.TINY: Reading(400, 128, source_words=128, target_words=62, pairs=200),
    Scale.SMALL: Reading(400, 128, source_words=128, target_words=62, pairs=5000),
    Scale.BASE: Reading(8000, 512, source_words=1024, target_words=200, pairs=20_000),
}

_RECIPES = {
    # The rate is high for a Transformer; the start as copies makes it safe.
    Scale.TINY: Recipe(steps=60, batch_size=8, learning_rate=3e-3, evaluations=2),
    Scale.SMALL: Recipe(steps=400, batch_size=8, learning_rate=3e-3),
    Scale.BASE: Recipe(
        steps=2000,
        batch_size=16,
        learning_rate=5e-4,
        warmup_steps=200,
        evaluations=8,
        precision="bfloat16",
    ),
}

_DECODED = {Scale.TINY: 8, Scale.SMALL: 32, Scale.BASE: 256}

SOURCE_TOKENS, TARGET_TOKENS = 4096, 400

_PAPER = Setting(
    recipe=Recipe(
        steps=50_000,
        batch_size=8,
        accumulate=8,
        learning_rate=5e-4,
        warmup_steps=1000,
        betas=(0.9, 0.98),
        weight_decay=0.01,
        gradient_clip=math.inf,
        schedule="inverse-sqrt",
        evaluations=5,
        precision="bfloat16",
    ),
    shortest=200,
    longest=TARGET_TOKENS,
    smoothing=0.1,
    validated=1024,
    evaluation_batch=8,
)


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
            "none is an encoder that mixes nothing (noncausal self) or a decoder that cannot see "
            "the source (causal cross) or only its current token of the text so far (causal "
            "self). At scale paper the source is all that is said of a country and the target "
            "its paragraph of background, in subwords."
        ),
        backbones={
            Pattern.NONCAUSAL_SELF: "transformer",
            Pattern.CAUSAL_SELF: "transformer",
            Pattern.CAUSAL_CROSS: "transformer",
        },
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
                help="the same over placeholder tokens: names that must be copied; not at scale "
                "paper, which has none",
            ),
            Metric(
                name="rouge_1",
                unit="%",
                higher_is_better=True,
                help=(
                    "ROUGE-1 F1 of greedy outputs, with stemming (8 test documents at scale tiny, "
                    "32 at small, 256 at base, all at paper); varies much between seeds, and the "
                    "template's words alone score"
                ),
                headline=False,
            ),
            Metric(
                name="rouge_2",
                unit="%",
                higher_is_better=True,
                help="ROUGE-2 F1 of the same outputs",
                headline=False,
            ),
            Metric(
                name="rouge_l",
                unit="%",
                higher_is_better=True,
                help="summary-level ROUGE-L F1 of the same outputs",
                headline=False,
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE, Scale.PAPER),
        dataset="world-factbook",
        data_dir=(
            "train.src, train.tgt, val.src, val.tgt, test.src, test.tgt as in Multi-News: UTF-8, "
            "one document or summary a line, line n of .tgt belonging to line n of .src (which may "
            "be named .src.cleaned). Documents are cut at 128 words, summaries at 62, and the "
            "first 5000 pairs of a split are read at scale small (200 at tiny; 1024, 200 and "
            "20,000 at base). At scale paper all is read, cut at 4096 and 400 subwords: those of "
            "BART-base if its vocab.json and merges.txt lie in the folder, as in CAB, otherwise as "
            "many learned from the first 10,000 training pairs"
        ),
        differences="below scale paper: text generated from table fields, not summaries of news, "
        "words beyond the commonest ones as placeholders, and a model of few layers that starts "
        "close to copying, since human-written summaries of this data do not tell attention from "
        "none in half a minute. At scale paper: BART's tokens only where the user has them, "
        "bfloat16 for fp16, the best of five checkpoints for the last, and ROUGE by another "
        "implementation with a simpler rule for where sentences end. NLL leads, where CAB reports "
        "ROUGE alone",
        retired={
            Pattern.NONCAUSAL_SELF: "the decoder's cross attention copies single tokens of the "
            "table, which need not know of each other: nll of softmax 0.606 ± 0.045, of none 0.606 "
            "± 0.039, a gap of 0.0 spreads at scale small, three seeds on a CPU",
        },
        paper="Fabbri et al., Multi-News (CAB's data set for this task)",
        url="https://arxiv.org/abs/1906.01749",
    )
)
class Summarization(SummaryTask):
    """Countries, or the documents of a folder."""

    @classmethod
    def data_problems(cls, data_dir: Path) -> list[str]:
        """See `cab.Task.data_problems`."""
        problems = list(folder_problems(data_dir))
        if has_bart_files(data_dir):
            try:
                read_bart_files(data_dir)
            except DataError as error:
                problems.append(str(error))
        return problems

    @property
    def data_hash(self) -> str:
        """Of the embedded table or of the six plain files; at scale paper also of the subwords."""
        content = hash_countries() if self.data_dir is None else hash_plain_files(self.data_dir)
        if not isinstance(self.representation, SubwordText):
            return content
        return hashlib.sha256(
            f"{content}\0{self.representation.subwords.serialised()}".encode()
        ).hexdigest()

    @property
    def setting(self) -> Setting:
        """See `SummaryTask.setting`."""
        if self.scale is Scale.PAPER:
            return _PAPER
        return Setting(
            _RECIPES[self.scale],
            longest=self._reading.target_words,
            decoded=_DECODED[self.scale],
        )

    @property
    def _reading(self) -> Reading:
        return (_COUNTRIES if self.data_dir is None else _PLAIN_FILES)[self.scale]

    def represent(self) -> Representation:
        """See `SummaryTask.represent`."""
        if self.scale is Scale.PAPER:
            return SubwordText(self._texts, self.data_dir, SOURCE_TOKENS, TARGET_TOKENS)
        reading, plain = self._reading, self.data_dir is not None
        return AnonymisedWords(
            self._plain_files(reading)
            if plain
            else read_countries(
                field_words=reading.source_words, target_words=reading.target_words
            ),
            fields=(DOCUMENT,) if plain else FIELDS,
            words=reading.words,
            placeholders=reading.placeholders,
            target_words=reading.target_words,
            sizes=_SIZES[self.scale],
        )

    def _texts(self, split: str) -> Iterator[TextPair]:
        return (
            read_backgrounds(split) if self.data_dir is None else read_pairs(self.data_dir, split)
        )

    def _plain_files(self, reading: Reading) -> Splits:
        splits: Splits = {}
        for split in SPLITS:
            pairs = splits[split] = []
            # To the end, though few are kept: only there it shows that lines do not correspond.
            for pair in self._texts(split):
                if len(pairs) < reading.pairs:
                    source = pair.source.replace(SEPARATOR, "|")
                    document = {DOCUMENT: words(source, reading.source_words)}
                    pairs.append(Pair(pair.id, document, words(pair.target, reading.target_words)))
        return splits
