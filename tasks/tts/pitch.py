"""The fundamental frequency of speech by autocorrelation, after Boersma (1993).

Of his method this has the division by the window's own autocorrelation, the interpolation between
samples and the preference for the higher octave; not the search for the best path over frames.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LOWEST, HIGHEST = 75.0, 500.0
"""Hz"""

VOICED = 0.45
"""Least autocorrelation, as a share of the energy, of a frame that has a pitch"""

_OCTAVE_COST = 0.03
"""What a peak loses with each octave below `HIGHEST`: twice a period is a period too"""

_WINDOW_S = 0.04

_FINER = 4
"""Lags between two samples"""


def log_pitch(samples: NDArray[np.floating], rate: int, hop: int) -> NDArray[np.float64]:
    """(T,) natural logarithm of Hz at samples 0, hop, 2 hop, ...

    Between voiced frames it is interpolated, before the first and behind the last it is theirs; a
    sound without any voiced frame gets the geometric mean of the limits, as a constant.
    """
    window = round(_WINDOW_S * rate)
    size = 1 << (2 * window - 1).bit_length()
    padded = np.pad(np.asarray(samples, np.float64), window // 2 + 1, mode="reflect")
    starts = np.arange(1 + len(samples) // hop) * hop
    hann = np.hanning(window)
    frames = padded[starts[:, None] + np.arange(window)]
    frames = (frames - frames.mean(1, keepdims=True)) * hann
    lags = np.arange(_FINER * int(rate / HIGHEST), _FINER * int(rate / LOWEST) + 2)
    own = _autocorrelation(hann[None], size)[0]
    found = _autocorrelation(frames, size)
    level = found[:, lags] / np.maximum(found[:, :1], 1e-12) * (own[0] / own[lags])
    inner = level[:, 1:-1] - _OCTAVE_COST * np.log2(lags[1:-1] / lags[0])
    peaks = (level[:, 1:-1] >= level[:, :-2]) & (level[:, 1:-1] >= level[:, 2:])
    best = np.where(peaks, inner, -1.0).argmax(1) + 1
    rows = np.arange(len(level))
    voiced = (level[rows, best] > VOICED) & (found[:, 0] > 1e-9)
    if not voiced.any():
        return np.full(len(level), 0.5 * np.log(LOWEST * HIGHEST))
    pitch = np.log(_FINER * rate / lags[best])
    return np.interp(rows, rows[voiced], pitch[voiced])


def _autocorrelation(frames: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """At lags of 1 / `_FINER` samples."""
    return np.fft.irfft(np.abs(np.fft.rfft(frames, size)) ** 2, _FINER * size)
