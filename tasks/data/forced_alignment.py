"""Forced alignment: how many samples of a recording each character of its text takes.

    features = standardised([cepstra(clip, rate) for clip in clips])
    chains = [character_chain(text) for text in texts]
    model, _ = train(features, chains, BROAD_CLASSES, PAUSE)
    path, _ = best_path(model, features[0], chains[0])
    durations = durations_of(path, chains[0], len(texts[0]), len(clips[0]), hop(rate))

A text is a left-to-right hidden Markov chain: three states for a letter, of which the middle one
may be skipped, and between words one state of silence that may be skipped too. A state emits
frames of mel-frequency cepstra from a diagonal Gaussian and is left with a constant probability;
all occurrences of a letter share their states, whatever the letter sounds like. Training starts
flat: every letter of a clip gets the same number of frames. Each round then re-estimates the
Gaussians from the most likely path (Viterbi training), the first rounds with one model for each
broad class of sounds, because 26 models at once settle on a worse division of the frames.
Nothing is random.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.data.mel_filters import mel_filters

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

HOPS_PER_SECOND = 200
WINDOW_S = 0.025
MEL_BANDS = 24
CEPSTRA = 10
SLOPE_FRAMES = 4

PARTS = 3
PAUSE = PARTS * len(string.ascii_lowercase)
"""The state of silence; those of the letters lie below it, three in a row."""

# Vowels, stops, fricatives, nasals, liquids, h by itself, and silence. Where a letter has several
# sounds the commonest counts: this is only where training begins.
_CLASSES = ("aeiouy", "bcdgkpqt", "fjsvxz", "mn", "lrw", "h")
BROAD_CLASSES: Ints = np.array(
    [
        next(n for n, letters in enumerate(_CLASSES) if letter in letters) * PARTS + part
        for letter in string.ascii_lowercase
        for part in range(PARTS)
    ]
    + [len(_CLASSES) * PARTS]
)
"""(PAUSE + 1,) the class of every state."""

# Variances are held above this fraction of a feature's variance (which is one), and a state of
# few frames leans towards its class, as if that lent it this many.
_VARIANCE_FLOOR = 0.05
_LENT_FRAMES = 100.0

# What the silence model starts from, since a flat start has no silence.
_QUIETEST = 0.03


@dataclass(frozen=True)
class Chain:
    """The states that an utterance passes through, in order."""

    states: Ints
    """(S,) which model each position uses"""
    skippable: NDArray[np.bool_]
    """(S,) positions that may be passed over; never two in a row"""
    owners: Ints
    """(S,) the character that a position's frames are counted for"""


@dataclass(frozen=True)
class Model:
    """A diagonal Gaussian and two probabilities for each of Q states."""

    means: Floats
    """(Q, F)"""
    variances: Floats
    """(Q, F)"""
    stay: Floats
    """(Q,) probability that the next frame is of the same position"""
    skip: Floats
    """(Q,) probability that a skippable position of this state is passed over"""

    def log_likelihoods(self, features: Floats) -> Floats:
        """(T, Q) log density of each frame under each state."""
        precision = 1 / self.variances
        constant = np.log(2 * np.pi * self.variances) + self.means**2 * precision
        return (
            features @ (self.means * precision).T
            - 0.5 * (features**2 @ precision.T)
            - 0.5 * constant.sum(1)
        )


def hop(rate: int) -> int:
    """Samples from one frame to the next."""
    return rate // HOPS_PER_SECOND


def cepstra(samples: NDArray[np.int16], rate: int) -> Floats:
    """(T, 3 * `CEPSTRA`) cepstra of a recording with their first and second slopes.

    Frame t is centred in the samples from t to t + 1 times `hop`.
    """
    step, window = hop(rate), round(rate * WINDOW_S)
    size = 1 << (window - 1).bit_length()
    padded = np.pad(samples / 32768.0, window // 2 + step)
    starts = np.arange(len(samples) // step) * step + step + step // 2
    frames = padded[starts[:, None] + np.arange(window)] * np.hanning(window)
    power = np.abs(np.fft.rfft(frames, size)) ** 2
    filters = mel_filters(rate, size, MEL_BANDS, 60.0, 0.4875 * rate)
    bands = np.log(power @ filters.T + 1e-7)
    angles = np.pi * np.arange(CEPSTRA)[:, None] * (np.arange(MEL_BANDS) + 0.5) / MEL_BANDS
    values = bands @ np.cos(angles).T
    slopes = _slopes(values)
    return np.concatenate([values, slopes, _slopes(slopes)], axis=1)


def standardised(features: Sequence[Floats]) -> list[Floats]:
    """Features of all clips with mean zero and variance one in each dimension."""
    everything = np.concatenate(features)
    mean, deviation = everything.mean(0), everything.std(0)
    return [(clip - mean) / deviation for clip in features]


def character_chain(text: str) -> Chain:
    """The chain of a text of lower-case letters, apostrophes and separators.

    A silence lies at either end and at every run of spaces and punctuation; its frames count for
    the first character of the run, at the ends of a text without such a character for the
    nearest letter. An apostrophe has no sound.
    """
    states, skippable, owners = [PAUSE], [True], [0]
    for place, character in enumerate(text):
        if character in string.ascii_lowercase:
            first = PARTS * string.ascii_lowercase.index(character)
            states += range(first, first + PARTS)
            skippable += [0 < part < PARTS - 1 for part in range(PARTS)]
            owners += [place] * PARTS
        elif character != "'" and states[-1] != PAUSE:
            states, skippable, owners = [*states, PAUSE], [*skippable, True], [*owners, place]
    if states[-1] != PAUSE:
        states, skippable, owners = [*states, PAUSE], [*skippable, True], [*owners, owners[-1]]
    return Chain(np.array(states), np.array(skippable), np.array(owners))


def durations_of(path: Ints, chain: Chain, characters: int, samples: int, hop: int) -> Ints:
    """(characters,) samples of each character, by a path over frames; they sum to ``samples``.

    Samples behind the last whole frame count for that frame's character.
    """
    frames = np.bincount(chain.owners[path], minlength=characters)
    durations = frames * hop
    durations[chain.owners[path[-1]]] += samples - hop * len(path)
    return durations


def train(
    features: Sequence[Floats],
    chains: Sequence[Chain],
    classes: Ints,
    pause: int | None = None,
    class_rounds: int = 6,
    rounds: int = 10,
) -> tuple[Model, list[float]]:
    """Fit a model to utterances from a flat start.

    Args:
        features: (T, F) per utterance, standardised; the first dimension is the loudness.
        chains: the chain of every utterance.
        classes: (Q,) the class of every state; the first rounds share parameters in a class.
        pause: the state of silence; the flat start gives it the quietest frames of all.
        class_rounds: rounds with shared parameters.
        rounds: rounds with parameters for each state.

    Returns:
        The model, and the mean log likelihood per frame of the best paths in every round.
    """
    everything = np.concatenate(features)
    flat = [
        _flat_path(chain, len(clip), pause) for clip, chain in zip(features, chains, strict=True)
    ]
    labels = _labels(flat, chains)
    if pause is not None:
        labels[everything[:, 0] <= np.quantile(everything[:, 0], _QUIETEST)] = pause
    means, variances = _gaussians(everything, labels, classes, shared=True)
    model = Model(means, variances, np.full(len(classes), 0.8), np.full(len(classes), 0.5))
    history = []
    for completed in range(class_rounds + rounds):
        aligned = [
            best_path(model, clip, chain) for clip, chain in zip(features, chains, strict=True)
        ]
        history.append(sum(score for _, score in aligned) / len(everything))
        paths = [path for path, _ in aligned]
        shared = completed + 1 < class_rounds
        labels = _labels(paths, chains)
        model = Model(
            *_gaussians(everything, labels, classes, shared),
            *_transitions(paths, chains, classes, shared),
        )
    return model, history


def best_path(model: Model, features: Floats, chain: Chain) -> tuple[Ints, float]:
    """The most likely position of the chain at every frame, (T,), and its log likelihood.

    Raises:
        ValueError: fewer frames than the shortest way through the chain.
    """
    count = len(chain.states)
    if len(features) < count - chain.skippable.sum():
        raise ValueError(f"{len(features)} frames cannot hold a chain of {count} positions")
    emitted = model.log_likelihoods(features)[:, chain.states]
    stay, step, leap = _log_transitions(model, chain)
    came_from = np.zeros((len(features), count), dtype=np.int8)
    # Two places before the first position make the shifts plain slices; the second of them is
    # where the path is before the first frame.
    best = np.full(count + 2, -np.inf)
    best[1] = 0.0
    options = np.empty((3, count))
    for t in range(len(features)):
        np.add(best[2:], stay, out=options[0])
        np.add(best[1:-1], step, out=options[1])
        np.add(best[:-2], leap, out=options[2])
        came_from[t] = options.argmax(0)
        best[2:] = options.max(0) + emitted[t]
        best[1] = -np.inf
    ends = [count - 1, count - 2] if chain.skippable[-1] else [count - 1]
    place = max(ends, key=lambda end: best[2 + end])
    score = float(best[2 + place])
    path = np.empty(len(features), dtype=np.int64)
    for t in reversed(range(len(features))):
        path[t] = place
        place -= int(came_from[t, place])
    return path, score


def _log_transitions(model: Model, chain: Chain) -> tuple[Floats, Floats, Floats]:
    """(S,) each: log probability to stay, to come from the position before, and over that one.

    For the first position "before" is the start of the clip.
    """
    stay, skip = model.stay[chain.states], model.skip[chain.states]
    left = np.concatenate([[1.0], 1 - stay[:-1]])
    entered = np.where(chain.skippable, 1 - skip, 1.0)
    over = np.where(chain.skippable[:-1], skip[:-1], 0.0)
    with np.errstate(divide="ignore"):
        leap = np.log(np.concatenate([[0.0], left[:-1] * over]))
        return np.log(stay), np.log(left * entered), leap


def _flat_path(chain: Chain, frames: int, pause: int | None) -> Ints:
    """Equal shares for all positions except silences."""
    places = np.flatnonzero(chain.states != (-1 if pause is None else pause))
    return places[np.arange(frames) * len(places) // frames]


def _labels(paths: Sequence[Ints], chains: Sequence[Chain]) -> Ints:
    pairs = zip(paths, chains, strict=True)
    return np.concatenate([chain.states[path] for path, chain in pairs])


def _gaussians(
    features: Floats, labels: Ints, classes: Ints, shared: bool
) -> tuple[Floats, Floats]:
    """Mean and variance of the frames of every state, (Q, F) each."""
    own = _moments(features, labels, len(classes))
    lent = _moments(features, classes[labels], int(classes.max()) + 1)
    counts, sums, squares = (values[classes] for values in lent)
    # A class without frames falls back on the distribution of all, which is standard normal.
    means, powers = (sums / np.maximum(counts, 1), np.where(counts > 0, squares, 1.0))
    powers /= np.maximum(counts, 1)
    if not shared:
        total = own[0] + _LENT_FRAMES
        means = (own[1] + _LENT_FRAMES * means) / total
        powers = (own[2] + _LENT_FRAMES * powers) / total
    return means, np.maximum(powers - means**2, _VARIANCE_FLOOR)


def _moments(features: Floats, groups: Ints, count: int) -> tuple[Floats, Floats, Floats]:
    """Number (count, 1), sum and sum of squares (count, F) of the frames of each group."""
    columns = range(features.shape[1])
    sums = [np.bincount(groups, features[:, f], count) for f in columns]
    squares = [np.bincount(groups, features[:, f] ** 2, count) for f in columns]
    numbers = np.bincount(groups, minlength=count).astype(np.float64)
    return numbers[:, None], np.stack(sums, axis=1), np.stack(squares, axis=1)


def _transitions(
    paths: Sequence[Ints], chains: Sequence[Chain], classes: Ints, shared: bool
) -> tuple[Floats, Floats]:
    """Probabilities to stay and to be skipped, (Q,) each, from counts with a few added."""
    counts = np.zeros((4, len(classes)))
    for path, chain in zip(paths, chains, strict=True):
        frames = np.bincount(path, minlength=len(chain.states))
        visited = frames > 0
        for row, (where, values) in enumerate(
            (
                (visited, frames - 1),
                (visited, np.ones_like(frames)),
                (chain.skippable & ~visited, np.ones_like(frames)),
                (chain.skippable, np.ones_like(frames)),
            )
        ):
            np.add.at(counts[row], chain.states[where], values[where])
    if shared:
        counts = np.stack([np.bincount(classes, row)[classes] for row in counts])
    stayed, visits, skipped, chances = counts
    return (stayed + 5) / (stayed + visits + 10), (skipped + 2) / (chances + 4)


def _slopes(values: Floats) -> Floats:
    """Regression slope over `SLOPE_FRAMES` frames on either side, (T, F)."""
    w, count = SLOPE_FRAMES, len(values)
    padded = np.pad(values, ((w, w), (0, 0)), mode="edge")
    weighted = (
        k * (padded[w + k : w + k + count] - padded[w - k : w - k + count]) for k in range(1, w + 1)
    )
    total: Floats = np.sum(list(weighted), axis=0)
    return total / (2 * sum(k * k for k in range(1, w + 1)))
