"""Text infilling: predictors from counts, what a query knows, one tiny cell."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
import torch

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from cab import Scale
from tasks.data.text import Vocabulary
from tasks.problems.hidden import hide
from tasks.text_infilling.predictors import letter_frequencies, markov, transitions
from tasks.text_infilling.task import TextInfilling, scores
from tests.tasks.hidden_cases import (
    NC,
    generator,
    model_of,
    same,
    shuffled_known,
    trained_score,
    without,
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    # At these sizes a second thread costs more than it gives, most of all on a busy machine.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny() -> TextInfilling:
    return TextInfilling(NC, Scale.TINY)


def test_counts_by_hand() -> None:
    vocabulary = Vocabulary.of("abb")
    text = vocabulary.encode("abbab")  # ids 1 2 2 1 2
    expected = torch.tensor([1.0, 3.0, 4.0], dtype=torch.float64) / 8
    torch.testing.assert_close(letter_frequencies(text, 3), expected)
    chain = transitions(text, 3, 1.0)
    torch.testing.assert_close(chain[1], torch.tensor([1, 1, 3], dtype=torch.float64) / 5)
    torch.testing.assert_close(chain[2], torch.tensor([1, 2, 2], dtype=torch.float64) / 5)


def test_markov_is_the_conditional_of_all_ways_to_fill_the_holes() -> None:
    size, length = 3, 6
    first = torch.rand(size, generator=generator(), dtype=torch.float64)
    chain = torch.rand(size, size, generator=generator(), dtype=torch.float64)
    first, chain = first / first.sum(), chain / chain.sum(1, keepdim=True)
    window = torch.tensor([[0, 2, 1, 1, 0, 2]])
    mask = torch.tensor([[True, False, True, True, False, True]])
    batch = hide(window, mask)
    weight = torch.zeros(4, size, dtype=torch.float64)
    for filling in itertools.product(range(size), repeat=4):
        whole = window[0].clone()
        whole[mask[0]] = torch.tensor(filling)
        steps = [chain[whole[t], whole[t + 1]] for t in range(length - 1)]
        likelihood = first[whole[0]] * math.prod(steps)
        weight[torch.arange(4), list(filling)] += likelihood
    expected = (weight / weight.sum(1, keepdim=True)).log()
    torch.testing.assert_close(markov(batch, first, chain)[0], expected)


def test_scores_of_a_certain_and_of_a_uniform_answer(tiny: TextInfilling) -> None:
    size = tiny.corpus.vocabulary.size
    uniform = scores(
        lambda batch: torch.full((*batch["target"].shape, size), -math.log(size)),
        tiny.questions("test", 0),
    )
    assert set(uniform) == {metric.name for metric in tiny.info.metrics}
    assert uniform["bits_per_hidden_character"] == pytest.approx(math.log2(size))
    certain = scores(
        lambda batch: torch.nn.functional.one_hot(batch["target"], size).double().log(),
        tiny.questions("test", 0),
    )
    assert certain == {"bits_per_hidden_character": 0.0, "accuracy": 1.0}


def test_references_are_ordered(tiny: TextInfilling) -> None:
    found = tiny.references(0)
    assert set(found) == {reference.name for reference in tiny.info.references}
    assert found["markov"] < found["letter-frequencies"]
    assert 0.2 < found["markov-accuracy"] < 1


def test_what_is_hidden_does_not_reach_the_answer(tiny: TextInfilling) -> None:
    """Windows that differ in hidden characters alone are asked and answered the same."""
    windows = tiny.random_windows(tiny.setting.length, generator())
    batch = tiny._hide(windows, generator())
    hidden = torch.zeros(windows.shape, dtype=torch.bool).scatter_(1, batch["asked_places"], True)
    size = tiny.corpus.vocabulary.size
    other = tiny._hide(torch.where(hidden, (windows + 1) % size, windows), generator())
    assert same(without(batch, "target"), without(other, "target"))
    assert not torch.equal(batch["target"], other["target"])
    model = model_of(tiny)
    with torch.no_grad():
        assert torch.equal(model(batch), model(other))


def test_the_order_of_the_known_does_not_matter(tiny: TextInfilling) -> None:
    batch = tiny.training_batch(generator())
    model = model_of(tiny)
    with torch.no_grad():
        shuffled = shuffled_known(batch, "known", "known_places")
        torch.testing.assert_close(model(batch), model(shuffled), atol=1e-5, rtol=1e-5)
        moved = {**shuffled, "known_places": batch["known_places"]}
        assert not torch.allclose(model(batch), model(moved), atol=1e-3)


def test_without_attention_a_query_knows_its_place_only(tiny: TextInfilling) -> None:
    batch = tiny.training_batch(generator())
    model = model_of(tiny, NoAttention)
    with torch.no_grad():
        assert torch.equal(model(batch), model({**batch, "known": batch["known"].flip(0)}))


def test_holes_are_fresh_in_training_and_fixed_in_tests(tiny: TextInfilling) -> None:
    draws = generator(3)
    first, second = tiny.training_batch(draws), tiny.training_batch(draws)
    assert not torch.equal(first["asked_places"], second["asked_places"])
    assert same(first, tiny.training_batch(generator(3)))
    one, two = list(tiny.questions("test", 0)), list(tiny.questions("test", 0))
    assert all(same(a, b) for a, b in zip(one, two, strict=True))


def test_tiny_trains_and_needs_attention(tiny: TextInfilling) -> None:
    assert trained_score(tiny, SoftmaxAttention) < 0.92 * trained_score(tiny, NoAttention)


def test_shown_text_has_its_holes(tiny: TextInfilling) -> None:
    with torch.no_grad():
        (shown,) = tiny.artifacts(model_of(tiny), 0)
    for piece in shown.content.decode().split("\n\n"):
        hidden, guessed, text = (line[9:] for line in piece.split("\n"))
        assert len(hidden) == len(guessed) == len(text) == tiny.setting.length
        assert hidden.count("_") >= tiny.setting.hidden
        for blank, guess, truth in zip(hidden, guessed, text, strict=True):
            assert blank == "_" or blank == guess == truth


def test_base_takes_a_step() -> None:
    base = TextInfilling(NC, Scale.BASE)
    batch = {name: x[:2] for name, x in base.training_batch(generator()).items()}
    assert (batch["target"].shape[1], batch["known"].shape[1]) == base.length()
    loss = base.loss(model_of(base), batch)
    loss.backward()
    assert loss.isfinite()
