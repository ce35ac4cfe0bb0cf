"""Vowel restoration: the text, what is left of it, the dictionary."""

from __future__ import annotations

import pytest
import torch

from cab import Pattern, Scale, seeds
from tasks.data.text import TextCorpus
from tasks.sequence_transduction import FIRST_TOKEN
from tasks.summarization.vocabulary import PADDING
from tasks.vowel_restoration.dictionary import Dictionary, without_vowels
from tasks.vowel_restoration.task import VowelRestoration
from tasks.vowel_restoration.text import Consonants, decode, load, plain


@pytest.fixture(scope="module")
def task() -> VowelRestoration:
    return VowelRestoration(Pattern.CAUSAL_CROSS, Scale.TINY)


def test_plain_text() -> None:
    assert plain('  In the [day]\nof "Job`s"  Ärger—x 12 ') == 'in the day of "jobs" rgerx'
    assert plain(plain("a [1] b")) == plain("a [1] b") == "a b"


def test_the_alphabet_is_that_of_the_training_text() -> None:
    corpus = load("web-bible")
    assert set(corpus.vocabulary.characters) == set("abcdefghijklmnopqrstuvwxyz ,.;:'?!\"-")
    for text in (corpus.train, corpus.validation, corpus.test):
        assert text.ids.min() > 0, "no unknown character"


def test_a_source_is_the_text_without_vowels(task) -> None:
    batch = task.training_batch(seeds.generator(0, "data"))
    for source, target in zip(batch["source"].tolist(), batch["target"].tolist(), strict=True):
        text = decode(task.corpus, target)
        assert len(text) == task.setting.length
        assert decode(task.corpus, source) == without_vowels(text)
        kept = [token for token in source if token != PADDING]
        assert source[: len(kept)] == kept, "padding stands behind"


def test_the_rate_of_places_is_that_of_all_text_not_of_the_window(task) -> None:
    share = task.consonants.share
    text = task.corpus.vocabulary.decode(task.corpus.train.ids[:200_000])
    assert share == pytest.approx(1 - len(without_vowels(text)) / len(text), abs=0.01)


def test_windows_of_consonants_alone_and_of_vowels_alone() -> None:
    corpus = TextCorpus.of("aeiou bcd", "bcd", "aei")
    batch = Consonants(corpus).batch(corpus.test.windows(torch.tensor([0]), 3))
    assert batch["source"].shape == (1, 0)
    assert batch["target"].shape == (1, 4)
    batch = Consonants(corpus).batch(corpus.validation.windows(torch.tensor([0]), 3))
    assert torch.equal(batch["source"], batch["target"][:, 1:])
    assert batch["source"].min() >= FIRST_TOKEN


def test_the_dictionary_takes_the_commonest_word() -> None:
    found = Dictionary("the men met a man, the men. i a o a")
    assert found.restored("th mn mt  mn, xyz.") == "the men met a men, xyz."
    assert found.restored("") == ""


def test_references_stand_in_the_order_that_they_should(task) -> None:
    values = task.references(0)
    assert values["dictionary"] < values["consonants"]
    assert 25 < values["consonants"] < 35, "about a third of English is vowels"
