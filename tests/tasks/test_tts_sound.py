"""Spectrograms, pitch and distortions: against direct computation, known sounds and all paths."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tasks.data.mel_filters import mel_filters
from tasks.tts.distortion import Floats, distortions, frame_distances, warp
from tasks.tts.pitch import log_pitch
from tasks.tts.spectrogram import LJ_SPEECH, TELEPHONE, Spectrogram


def tone(rate: int, hertz: float, seconds: float) -> Floats:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


# Spectrograms


@pytest.mark.parametrize("spectrogram", [TELEPHONE, LJ_SPEECH], ids=["8 kHz", "22 kHz"])
def test_log_mel_is_the_directly_computed_spectrum(spectrogram: Spectrogram) -> None:
    """One frame in the middle, its Fourier sum and its triangles written out."""
    samples = 0.1 * np.random.default_rng(0).normal(size=4000)
    found = spectrogram.log_mel(spectrogram.amplitudes(samples))
    assert found.shape == (1 + 4000 // spectrogram.hop, spectrogram.bands)

    number = 2000 // spectrogram.hop
    n = np.arange(spectrogram.window)
    start = number * spectrogram.hop - spectrogram.window // 2
    piece = samples[start : start + spectrogram.window]
    piece = piece * np.sin(np.pi * n / spectrogram.window) ** 2
    k = np.arange(spectrogram.window // 2 + 1)
    basis = np.exp(-2j * np.pi * k[:, None] * n / spectrogram.window)
    amplitudes = np.abs(basis @ piece)
    hertz = k * spectrogram.rate / spectrogram.window

    def mel(f: float) -> float:
        return 2595 * np.log10(1 + f / 700)

    step = (mel(spectrogram.high) - mel(spectrogram.low)) / (spectrogram.bands + 1)
    expected = []
    for band in range(spectrogram.bands):
        left, centre, right = (
            700 * (10 ** ((mel(spectrogram.low) + (band + i) * step) / 2595) - 1) for i in range(3)
        )
        weights = [
            max(0.0, min((f - left) / (centre - left), (right - f) / (right - centre)))
            for f in hertz
        ]
        expected.append(np.log(max(float(amplitudes @ weights), spectrogram.floor)))
    assert found[number] == pytest.approx(np.array(expected), abs=1e-9)


def test_filters_overlap_to_one_and_end_at_their_limits() -> None:
    filters = mel_filters(8000, 256, bands=40, low=60, high=3900)
    frequencies = np.arange(129) * 8000 / 256
    assert not filters[:, (frequencies <= 60) | (frequencies >= 3900)].any()
    edges = 700 * (10 ** (np.linspace(*(np.log10(1 + f / 700) for f in (60, 3900)), 42)) - 1)
    between = (frequencies > edges[1]) & (frequencies < edges[-2])
    assert filters.sum(0)[between] == pytest.approx(np.ones(between.sum()))


def test_a_tone_is_in_the_band_of_its_frequency() -> None:
    found = TELEPHONE.log_mel(TELEPHONE.amplitudes(tone(8000, 1000, 0.5)))
    edges = np.linspace(*(np.log10(1 + f / 700) for f in (60, 3900)), 42)
    nearest = np.abs(edges[1:-1] - np.log10(1 + 1000 / 700)).argmin()
    assert (found[2:-2].argmax(1) == nearest).all()


def test_silence_is_the_floor() -> None:
    found = TELEPHONE.log_mel(TELEPHONE.amplitudes(np.zeros(1000)))
    assert found == pytest.approx(np.full((8, 40), np.log(1e-3)))


def test_sound_of_a_spectrogram_has_that_spectrogram() -> None:
    rising = tone(8000, 300, 0.6) * np.linspace(0.1, 1, 4800) + tone(8000, 1500, 0.6) / 3
    wanted = TELEPHONE.log_mel(TELEPHONE.amplitudes(rising))
    sound = TELEPHONE.sound(wanted)
    assert len(sound) == (len(wanted) - 1) * TELEPHONE.hop
    assert np.abs(sound).max() <= 1
    again = TELEPHONE.log_mel(TELEPHONE.amplitudes(sound))
    loud = wanted > 0
    assert np.abs(again - wanted)[loud].mean() < 0.2, "a fifth of the amplitude"
    assert np.array_equal(sound, TELEPHONE.sound(wanted))


# Pitch


@pytest.mark.parametrize(("rate", "hop"), [(8000, 128), (22_050, 256)])
@pytest.mark.parametrize("hertz", [90.0, 137.0, 220.0, 410.0])
def test_pitch_of_a_voice(rate: int, hop: int, hertz: float) -> None:
    """Ten harmonics, the first of them weak, as over a telephone."""
    voice = sum(tone(rate, hertz * k, 0.4) / (1 if k > 1 else 10) for k in range(1, 6))
    found = np.exp(log_pitch(np.asarray(voice), rate, hop))
    assert len(found) == 1 + round(rate * 0.4) // hop
    assert found[4:-4] == pytest.approx(np.full(len(found) - 8, hertz), rel=0.01)


def test_pitch_is_bridged_where_there_is_no_voice() -> None:
    noise = 0.05 * np.random.default_rng(0).normal(size=2400)
    low, high = (sum(tone(8000, hertz * k, 0.3) for k in range(1, 5)) for hertz in (110.0, 220.0))
    found = np.exp(log_pitch(np.concatenate([low, noise, high]), 8000, 128))
    assert found[5] == pytest.approx(110, rel=0.01)
    assert found[-5] == pytest.approx(220, rel=0.01)
    assert (np.diff(found[22:34]) > 0).mean() > 0.5
    silent = log_pitch(np.zeros(1000), 8000, 128)
    assert silent == pytest.approx(np.full(8, 0.5 * np.log(75 * 500)))


# Distortions


def brute_force(distance: Floats) -> float:
    """Over every monotone path, one by one."""
    rows, columns = distance.shape
    best = np.inf
    steps = ((1, 0), (0, 1), (1, 1))
    for length in range(max(rows, columns) - 1, rows + columns - 1):
        for moves in itertools.product(steps, repeat=length):
            path = np.cumsum([(0, 0), *moves], axis=0)
            if tuple(path[-1]) == (rows - 1, columns - 1):
                best = min(best, float(distance[path[:, 0], path[:, 1]].sum()))
    return best


def test_warping_is_the_best_of_all_paths() -> None:
    random = np.random.default_rng(0)
    shapes = [(1, 1), (1, 4), (4, 1), (3, 3), (4, 3), (3, 5)]
    distances = [random.random(shape) for shape in shapes]
    totals, steps = warp(distances)
    assert totals.tolist() == pytest.approx([brute_force(matrix) for matrix in distances])
    assert all(max(shape) <= n < sum(shape) for shape, n in zip(shapes, steps, strict=True))


def by_loop(distance: Floats) -> tuple[float, int]:
    """Cell by cell, as the textbook has it."""
    best: dict[tuple[int, int], tuple[float, int]] = {(-1, -1): (0.0, 0)}
    nowhere = (np.inf, 0)
    for i, j in np.ndindex(distance.shape):
        before = [best.get(p, nowhere) for p in ((i - 1, j - 1), (i - 1, j), (i, j - 1))]
        total, steps = min(before, key=lambda one: one[0])
        best[i, j] = (total + float(distance[i, j]), steps + 1)
    return best[distance.shape[0] - 1, distance.shape[1] - 1]


def test_warping_of_long_utterances_together_is_that_of_each_by_loop() -> None:
    random = np.random.default_rng(1)
    shapes = [(40, 61), (75, 30), (2, 90), (50, 50)]
    distances = [random.random(shape) for shape in shapes]
    totals, steps = warp(distances)
    expected = [by_loop(matrix) for matrix in distances]
    assert totals.tolist() == pytest.approx([total for total, _ in expected])
    assert steps.tolist() == [count for _, count in expected]


def test_warping_prefers_the_diagonal() -> None:
    totals, steps = warp([np.zeros((5, 7))])
    assert (totals[0], steps[0]) == (0.0, 7)


def test_distances_are_root_mean_squares() -> None:
    one, other = np.array([[0.0, 0.0]]), np.array([[3.0, 4.0], [0.0, 0.0]])
    assert frame_distances(one, other).tolist() == [[np.sqrt(12.5), 0.0]]


def test_distortions_of_known_differences() -> None:
    """One level higher everywhere: only the constant cepstrum differs."""
    clip = np.random.default_rng(2).normal(size=(20, 40))
    assert distortions([clip], [clip]) == {"mcd": 0.0, "msd": 0.0}
    # Too far apart for any warping to help.
    found = distortions([clip + 100], [clip])
    path = warp([frame_distances(2 * clip + 200, 2 * clip)])
    assert found["msd"] == pytest.approx(float(path[0][0] / path[1][0]))
    flat = np.zeros((20, 40))
    found = distortions([flat + 1], [flat])
    assert found["msd"] == pytest.approx(2.0)
    assert found["mcd"] == pytest.approx(np.sqrt((2 * np.sqrt(40)) ** 2 / 13))


def test_distortions_forgive_another_tempo_and_pool_steps() -> None:
    random = np.random.default_rng(3)
    clip, other = random.normal(size=(30, 40)), random.normal(size=(10, 40))
    slow = np.repeat(clip, 2, axis=0)
    assert distortions([slow], [clip])["msd"] == pytest.approx(0.0, abs=1e-12)
    both = distortions([slow, other + 1], [clip, other])
    alone = distortions([other + 1], [other])
    total, steps = warp([frame_distances(2 * other + 2, 2 * other)])
    assert both["msd"] == pytest.approx(alone["msd"] * steps[0] / (60 + steps[0]))
    assert total[0] > 0
