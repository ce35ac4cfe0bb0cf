"""Mel cepstral and mel spectral distortion (MCD, MSD) under dynamic time warping.

The definitions are those of fairseq (`fairseq/tasks/text_to_speech.py` and
`examples/speech_synthesis/evaluation/eval_sp.py`, after Weiss et al. 2021, arXiv 2011.03568), with
which CAB measured. Two frames are as far apart as the root mean square of the differences of their
log-mel powers (MSD) or of 13 cepstra, the orthonormal cosine transform of these with its constant
term (MCD). The warping path of least total distance joins all frames of both; the distortion is the
total over all utterances divided by the steps of their paths (fairseq's ``dist_per_ali_frm``).

Not as there: log-mels come from the model itself, not from a waveform that a vocoder made of them
and that was then analysed with windows of 50 ms; a power is the square of a band's amplitude. So
values compare within a scale, not with papers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CEPSTRA = 13


def distortions(
    made: Sequence[NDArray[np.floating]], wanted: Sequence[NDArray[np.floating]]
) -> dict[str, float]:
    """``mcd`` and ``msd`` of (T, bands) log-mel amplitudes against those of the recordings."""
    powers = [[2.0 * np.asarray(clip, np.float64) for clip in clips] for clips in (made, wanted)]
    cepstra = [
        [scipy.fft.dct(clip, norm="ortho")[:, :CEPSTRA] for clip in clips] for clips in powers
    ]
    return {"mcd": _pooled(*cepstra), "msd": _pooled(*powers)}


def _pooled(made: list[Floats], wanted: list[Floats]) -> float:
    pairs = zip(made, wanted, strict=True)
    totals, steps = warp([frame_distances(one, other) for one, other in pairs])
    return float(totals.sum() / steps.sum())


def frame_distances(one: Floats, other: Floats) -> Floats:
    """(M, N) root mean square differences of (M, K) and (N, K)."""
    return np.sqrt(np.square(one[:, None] - other).mean(-1))


def warp(distances: Sequence[Floats]) -> tuple[Floats, NDArray[np.int64]]:
    """Total distance and number of steps of each matrix's best path from corner to corner.

    A step goes one frame on in the rows, in the columns or in both (Sakoe and Chiba 1978, without
    slope constraint); of equally good paths the one that goes on in both is taken. The
    anti-diagonals of all matrices are computed one after the other, each at once.
    """
    sizes = np.array([matrix.shape for matrix in distances])
    rows = int(sizes[:, 0].max())
    ends = sizes.sum(1) - 2
    skewed = np.full((int(ends.max()) + 1, len(distances), rows), np.inf)
    for number, matrix in enumerate(distances):
        i, j = np.indices(matrix.shape)
        skewed[i + j, number, i] = matrix
    pairs = np.arange(len(distances))
    totals, steps = np.empty(len(distances)), np.empty(len(distances), np.int64)
    # Index 0 of the last axis stands before the first row, the others are one row further.
    cost = np.full((2, len(distances), rows + 1), np.inf)
    count = np.zeros((2, len(distances), rows + 1), np.int64)
    cost[0, :, 0] = 0.0
    for k, diagonal in enumerate(skewed):
        # One row and one column before lies two anti-diagonals back, either alone one back.
        costs = np.stack([cost[0, :, :-1], cost[1, :, :-1], cost[1, :, 1:]])
        counts = np.stack([count[0, :, :-1], count[1, :, :-1], count[1, :, 1:]])
        best = costs.argmin(0)[None]
        cost = np.stack([cost[1], np.full_like(cost[1], np.inf)])
        count = np.stack([count[1], np.zeros_like(count[1])])
        cost[1, :, 1:] = np.take_along_axis(costs, best, 0)[0] + diagonal
        count[1, :, 1:] = np.take_along_axis(counts, best, 0)[0] + 1
        done = pairs[ends == k]
        totals[done] = cost[1, done, sizes[done, 0]]
        steps[done] = count[1, done, sizes[done, 0]]
    return totals, steps
