"""The task ``summarization-docstrings``: summaries that people wrote, learned in half a minute."""

from __future__ import annotations

from dataclasses import dataclass

from cab import Metric, Pattern, Recipe, Scale, TaskInfo, register_task
from tasks.summarization.anonymised_words import AnonymisedWords
from tasks.summarization.corpus import Representation
from tasks.summarization.docstrings import FIELD, hash_docstrings, read_docstrings
from tasks.summarization.encoder_decoder import Sizes
from tasks.summarization.summary_task import EVERY, Setting, SummaryTask


@dataclass(frozen=True)
class _Scaled:
    """Data, model and training of one scale."""

    words: int
    """Common words that are tokens."""
    placeholders: int
    source_words: int
    sizes: Sizes
    recipe: Recipe
    decoded: int


TARGET_WORDS = 20
"""Longer summaries, one in a hundred, are cut."""

_SCALES = {
    Scale.TINY: _Scaled(
        words=1000,
        placeholders=64,
        source_words=32,
        sizes=Sizes(dim=32, heads=2, layers=1),
        recipe=Recipe(steps=80, batch_size=16, learning_rate=5e-3, evaluations=1),
        decoded=8,
    ),
    Scale.SMALL: _Scaled(
        words=1500,
        placeholders=64,
        source_words=64,
        sizes=Sizes(dim=64, heads=4, layers=2),
        recipe=Recipe(steps=400, batch_size=32, learning_rate=5e-3),
        decoded=64,
    ),
    Scale.BASE: _Scaled(
        words=5000,
        placeholders=256,
        source_words=256,
        sizes=Sizes(dim=256, heads=8, layers=4, expansion=4, dropout=0.2),
        recipe=Recipe(
            steps=3000,
            batch_size=64,
            learning_rate=5e-4,
            warmup_steps=300,
            evaluations=10,
            precision="bfloat16",
        ),
        decoded=EVERY,
    ),
}


@register_task(
    TaskInfo(
        id="summarization-docstrings",
        title="Summarisation of docstrings",
        description=(
            "An encoder-decoder writes the line that sums up a function or class from the text "
            "that explains it. Both were written by the developers of 23 scientific Python "
            "packages; whole modules are held out. Words that are rare in training are anonymised "
            "to placeholders drawn afresh at each use, so that names must be copied. The control "
            "none is an encoder that mixes nothing (noncausal self) or a decoder that cannot see "
            "the source (causal cross) or only its current token of the text so far (causal "
            "self)."
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
                help="the same over placeholder tokens, about one in twelve: names that must be "
                "copied",
                headline=False,
            ),
            Metric(
                name="rouge_1",
                unit="%",
                higher_is_better=True,
                help="ROUGE-1 F1 of greedy outputs, with stemming (8 test documents at scale "
                "tiny, 64 at small, all at base)",
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
                help="ROUGE-L F1 of the same outputs",
                headline=False,
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="docstrings",
        differences="one line from a short text instead of a paragraph from several articles, "
        "words beyond the commonest ones as placeholders, and a model of few layers that starts "
        "close to copying; outputs read poorly at the smaller scales, likelihoods tell more",
    )
)
class SummarizationDocstrings(SummaryTask):
    """Docstrings without their first line, to that line."""

    @property
    def data_hash(self) -> str:
        """See `cab.Task.data_hash`."""
        return hash_docstrings()

    @property
    def setting(self) -> Setting:
        """See `SummaryTask.setting`."""
        scaled = _SCALES[self.scale]
        return Setting(
            scaled.recipe, longest=TARGET_WORDS, decoded=scaled.decoded, evaluation_batch=64
        )

    def represent(self) -> Representation:
        """See `SummaryTask.represent`."""
        scaled = _SCALES[self.scale]
        return AnonymisedWords(
            read_docstrings(source_words=scaled.source_words, target_words=TARGET_WORDS),
            fields=(FIELD,),
            words=scaled.words,
            placeholders=scaled.placeholders,
            target_words=TARGET_WORDS,
            sizes=scaled.sizes,
        )
