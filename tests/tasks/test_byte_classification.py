"""Passages of text as bytes: folding, splits, passages, naive Bayes."""

from __future__ import annotations

import pytest
import torch

from cab import Pattern, Scale
from tasks.byte_classification.passages import (
    SOURCES,
    SYMBOLS,
    even_passages,
    fold,
    folded_texts,
    naive_bayes,
    random_passages,
    unfold,
)
from tasks.byte_classification.task import ByteClassification


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Call me Ishmael.", "call me ishmael"),
        ("  1,234 km\n\n(est.)  ", "km est"),
        ("don't -- Ünicode", "don t nicode"),
        ("a" * 5, "aaaaa"),
    ],
)
def test_folding(text: str, folded: str) -> None:
    assert unfold(fold(text)) == folded
    assert fold(text).max() < SYMBOLS


def test_passages_of_held_out_documents_are_new() -> None:
    """Works share no passage; profiles and docstrings have a few stock sentences in common."""
    train, test = folded_texts("train"), folded_texts("test")
    assert len(train) == len(test) == len(SOURCES)
    for source, kept, held in zip(SOURCES, train, test, strict=True):
        written = unfold(kept)
        passages, _ = even_passages((held,), 100, 10)
        shared = sum(unfold(passage) in written for passage in passages)
        assert shared <= (3 if source.dataset in ("docstrings", "world-factbook") else 0)


def test_only_shakespeare_of_the_poets() -> None:
    train = unfold(folded_texts("train")[0])
    assert "of man s first disobedience and the fruit" not in train


def test_random_passages_are_uniform_over_sources_and_starts() -> None:
    texts = (torch.arange(50).byte(), torch.arange(100, 120).byte())
    passages, labels = random_passages(texts, 5, 4000, torch.Generator().manual_seed(0))
    assert labels.double().mean().item() == pytest.approx(0.5, abs=0.03)
    assert torch.equal(labels, (passages[:, 0] >= 100).long())
    assert (passages.diff(dim=1) == 1).all()
    starts = passages[labels == 1, 0] - 100
    assert set(starts.tolist()) == set(range(16))
    counts = starts.bincount() / len(starts)
    torch.testing.assert_close(counts, torch.full((16,), 1 / 16), atol=0.02, rtol=0)


def test_even_passages_are_disjoint_and_balanced() -> None:
    texts = (torch.arange(50).byte(), torch.arange(100, 120).byte())
    passages, labels = even_passages(texts, 5, 100)
    assert labels.tolist() == [0] * 4 + [1] * 4
    assert passages[:4, 0].tolist() == [0, 15, 30, 45]
    assert passages[4:, 0].tolist() == [100, 105, 110, 115]


def test_naive_bayes_on_constructed_texts() -> None:
    """Two texts with the same letters in another order: bytes cannot, pairs can tell them."""
    same, changing = fold("aabb" * 500), fold("abab" * 500)
    passages = torch.stack([same[2:42], changing[2:42]]).long()
    assert naive_bayes((same, changing), 2, passages).tolist() == [0, 1]
    counts = torch.stack([t.long().bincount(minlength=SYMBOLS) for t in (same, changing)])
    assert torch.equal(counts[0], counts[1])
    letters = (fold("aaab" * 500), fold("abbb" * 500))
    passages = torch.stack([text[2:42] for text in letters]).long()
    assert naive_bayes(letters, 1, passages).tolist() == [0, 1]


def test_naive_bayes_counts_by_hand() -> None:
    text, passage = fold("abca"), fold("ab").long()[None]
    other = fold("bbbb")
    first = (2 + 1) * (1 + 1) / (4 + SYMBOLS) ** 2
    second = 1 * (4 + 1) / (4 + SYMBOLS) ** 2
    assert naive_bayes((text, other), 1, passage).item() == (0 if first > second else 1)


def test_words_tell_more_than_bytes() -> None:
    task = ByteClassification(Pattern.NONCAUSAL_SELF, Scale.SMALL)
    known = task.references(0)
    assert known["chance"] + 0.2 < known["naive-bayes-bytes"]
    assert known["naive-bayes-bytes"] + 0.2 < known["naive-bayes-bigrams"]


def test_classes_are_balanced() -> None:
    task = ByteClassification(Pattern.NONCAUSAL_SELF, Scale.TINY)
    for split in ("validation", "test"):
        examples = task.examples(split, 0)
        assert examples["labels"].bincount().tolist() == [50] * 6
        assert examples["tokens"].shape == (300, task.length()[0])
