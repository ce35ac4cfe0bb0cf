"""ROUGE of known texts, worked out by hand."""

from __future__ import annotations

import pytest

from tasks.summarization.rouge import rouge


def test_the_texts_of_the_paper() -> None:
    """Lin (2004), section 3.1: both candidates share "the gunman" with the reference, but the first
    keeps the order. "kill" and "killed" have one stem.
    """
    reference = "police killed the gunman"
    first = rouge(["police kill the gunman"], [reference])
    assert first == pytest.approx({"rouge_1": 100, "rouge_2": 100, "rouge_l": 100})
    second = rouge(["the gunman shoots police"], [reference])
    assert second == pytest.approx({"rouge_1": 75, "rouge_2": 100 / 3, "rouge_l": 50})


def test_the_union_over_sentences() -> None:
    """Lin (2004), section 3.2: against w1..w5 the sentences "w1 w2 w6 w7 w8" and "w1 w3 w8 w9 w5"
    have the subsequences w1 w2 and w1 w3 w5, whose union has 4 of 5 words.
    """
    found = rouge(["w1 w2 w6 w7 w8. w1 w3 w8 w9 w5."], ["w1 w2 w3 w4 w5."])
    recall, precision = 4 / 5, 4 / 10
    assert found["rouge_l"] == pytest.approx(100 * 2 * recall * precision / (recall + precision))


def test_sentences_end_at_marks_before_white_space() -> None:
    """Swapped sentences cost nothing, swapped halves of one sentence do."""
    reference = "a cat sat. the dog ran 1.5 miles."
    swapped = rouge(["the dog ran 1.5 miles . a cat sat ."], [reference])
    assert swapped["rouge_l"] == pytest.approx(100)
    joined = rouge(["the dog ran 1.5 miles, a cat sat."], [reference.replace(". t", ", t")])
    assert joined["rouge_l"] < 70


def test_scores_are_means_over_documents() -> None:
    found = rouge(["a b c d", ""], ["a b c d", "something"])
    assert found == pytest.approx({"rouge_1": 50, "rouge_2": 50, "rouge_l": 50})
