"""Forced alignment: against known paths, against all paths, and its parts by hand."""

from __future__ import annotations

import itertools
import string

import numpy as np
import pytest

from tasks.data import forced_alignment
from tasks.data.forced_alignment import (
    BROAD_CLASSES,
    PAUSE,
    Chain,
    Floats,
    Ints,
    Model,
    best_path,
    cepstra,
    character_chain,
    durations_of,
    standardised,
    train,
)


def synthetic(seed: int, count: int) -> tuple[list[Floats], list[Chain], list[Ints]]:
    """Utterances of a known model of ten letters and silence, with their true paths.

    A letter's three parts differ a little, letters differ a lot. No letter occurs twice: where
    one of two equal letters in a row ends, the sound does not say.
    """
    random = np.random.default_rng(seed)
    letters = "aeiostmnlr"
    centres = {letter: random.normal(0, 2.0, 8) for letter in letters}
    for letter in letters:
        centres[letter][0] = abs(centres[letter][0])
    drift = random.normal(0, 0.4, 8)
    features, chains, paths = [], [], []
    for _ in range(count):
        drawn = iter(random.permutation(list(letters)))
        words = ["".join(itertools.islice(drawn, random.integers(2, 4))) for _ in range(3)]
        chain = character_chain(" ".join(words))
        path, rows = [], []
        for place, (state, skippable) in enumerate(zip(chain.states, chain.skippable, strict=True)):
            if skippable and random.random() < (0.5 if state == PAUSE else 0.3):
                continue
            frames = random.integers(1, 8) if state != PAUSE else random.integers(3, 15)
            letter, part = divmod(int(state), 3)
            centre = (
                np.r_[-6.0, np.zeros(7)]
                if state == PAUSE
                else centres[string.ascii_lowercase[letter]] + (part - 1) * drift
            )
            rows += list(centre + random.normal(0, 0.7, (frames, 8)))
            path += [place] * frames
        features.append(np.array(rows))
        chains.append(chain)
        paths.append(np.array(path))
    return standardised(features), chains, paths


def test_alignment_finds_the_truth_from_a_flat_start() -> None:
    features, chains, paths = synthetic(seed=0, count=200)
    model, history = train(features, chains, BROAD_CLASSES, PAUSE, class_rounds=4, rounds=8)
    assert all(later > earlier - 0.01 for earlier, later in itertools.pairwise(history))
    assert history[-1] > history[0] + 0.5
    gaps = []
    for frames, chain, truth in zip(features, chains, paths, strict=True):
        found, _ = best_path(model, frames, chain)
        characters = int(chain.owners.max()) + 1
        ends = [
            np.cumsum(durations_of(path, chain, characters, len(frames), hop=1))
            for path in (found, truth)
        ]
        gaps += list(np.abs(ends[0] - ends[1])[:-1])
    assert np.mean(np.array(gaps) == 0) > 0.95
    assert np.mean(np.array(gaps) <= 2) > 0.99


def test_training_is_deterministic() -> None:
    features, chains, _ = synthetic(seed=1, count=8)
    one, other = (
        train(features, chains, BROAD_CLASSES, PAUSE, class_rounds=2, rounds=2) for _ in range(2)
    )
    assert one[1] == other[1]
    assert np.array_equal(one[0].means, other[0].means)


@pytest.mark.parametrize("text", ["at", "a b", "it's"])
def test_best_path_is_the_best_of_all(text: str) -> None:
    """Against every way through a chain, its probability written out."""
    random = np.random.default_rng(2)
    chain = character_chain(text)
    count = PAUSE + 1
    model = Model(
        random.normal(size=(count, 3)),
        random.uniform(0.5, 2, (count, 3)),
        random.uniform(0.2, 0.9, count),
        random.uniform(0.2, 0.8, count),
    )
    features = random.normal(size=(8, 3))
    densities = model.log_likelihoods(features)
    expected = (features[2] - model.means[5]) ** 2 / model.variances[5]
    expected = -0.5 * (expected + np.log(2 * np.pi * model.variances[5])).sum()
    assert densities[2, 5] == pytest.approx(expected, abs=1e-9)

    best = (-np.inf, ())
    places = range(len(chain.states))
    for used in itertools.product((False, True), repeat=len(places)):
        kept = [place for place in places if used[place]]
        if any(not used[p] and not chain.skippable[p] for p in places) or len(kept) > len(features):
            continue
        for cuts in itertools.combinations(range(1, len(features)), len(kept) - 1):
            lengths = np.diff([0, *cuts, len(features)])
            path = np.repeat(kept, lengths)
            score = float(densities[np.arange(len(features)), chain.states[path]].sum())
            for place in places:
                state = chain.states[place]
                # The last silence is free to be left out: the text is over.
                if chain.skippable[place] and (used[place] or place < places[-1]):
                    taken = model.skip[state] if not used[place] else 1 - model.skip[state]
                    score += np.log(taken)
            for place, length in zip(kept, lengths, strict=True):
                score += (length - 1) * np.log(model.stay[chain.states[place]])
                if place != kept[-1]:
                    score += np.log(1 - model.stay[chain.states[place]])
            best = max(best, (score, tuple(path)))
    path, score = best_path(model, features, chain)
    assert score == pytest.approx(best[0], abs=1e-9)
    assert tuple(path) == best[1]


def test_chain_of_a_text() -> None:
    chain = character_chain("a'b, c")
    a, b, c = (list(range(3 * n, 3 * n + 3)) for n in range(3))
    assert chain.states.tolist() == [PAUSE, *a, *b, PAUSE, *c, PAUSE]
    assert chain.owners.tolist() == [0, 0, 0, 0, 2, 2, 2, 3, 5, 5, 5, 5]
    inner = [False, True, False]
    assert chain.skippable.tolist() == [True, *inner, *inner, True, *inner, True]
    assert character_chain("ab?").owners.tolist() == [0, 0, 0, 0, 1, 1, 1, 2]


def test_durations_count_every_sample() -> None:
    chain = character_chain("ab")
    path = np.array([0, 1, 3, 3, 4, 6, 7])
    assert durations_of(path, chain, 2, 7 * 40 + 13, hop=40).tolist() == [160, 3 * 40 + 13]


def test_too_few_frames_are_refused() -> None:
    count = PAUSE + 1
    model = Model(
        np.zeros((count, 1)), np.ones((count, 1)), np.full(count, 0.5), np.full(count, 0.5)
    )
    with pytest.raises(ValueError, match="3 frames cannot hold a chain of 8 positions"):
        best_path(model, np.zeros((3, 1)), character_chain("ab"))


def test_cepstra_follow_the_sound() -> None:
    """A loud half and a silent half: the first coefficient drops at the middle frame."""
    times = np.arange(8000) / 8000
    tone = (10_000 * np.sin(2 * np.pi * 440 * times)).astype(np.int16)
    tone[4000:] = 0
    features = cepstra(tone, 8000)
    assert features.shape == (200, 3 * forced_alignment.CEPSTRA)
    loudness = features[:, 0]
    assert loudness[5:95].min() > loudness[105:].max() + 10
    slope = features[:, forced_alignment.CEPSTRA]
    assert abs(int(slope.argmin()) - 100) <= 2
    assert slope[20:80] == pytest.approx(np.zeros(60), abs=0.1)
