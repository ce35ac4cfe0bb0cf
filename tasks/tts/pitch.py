"""The fundamental frequency of speech by autocorrelation (Boersma 1993, in its simplest form)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LOWEST, HIGHEST = 75.0, 500.0
"""Hz"""

VOICED = 0.45
"""Least autocorrelation, as a share of the energy, of a frame that has a pitch"""

_WINDOW_S = 0.04


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
    lags = np.arange(int(rate / HIGHEST), int(rate / LOWEST) + 2)
    own = _autocorrelation(hann[None], size)[0]
    found = _autocorrelation(frames, size)
    # A window makes the autocorrelation fall with the lag; dividing by its own undoes that.
    level = found[:, lags] / np.maximum(found[:, :1], 1e-12) * (own[0] / own[lags])
    inner = level[:, 1:-1]
    peaks = (inner >= level[:, :-2]) & (inner >= level[:, 2:])
    best = np.where(peaks, inner, -1.0).argmax(1) + 1
    rows = np.arange(len(level))
    voiced = (level[rows, best] > VOICED) & (found[:, 0] > 1e-9)
    if not voiced.any():
        return np.full(len(level), 0.5 * np.log(LOWEST * HIGHEST))
    before, at, behind = (level[rows, best + shift] for shift in (-1, 0, 1))
    curve = before - 2 * at + behind
    shift = np.where(np.abs(curve) > 1e-12, 0.5 * (before - behind) / np.where(curve, curve, 1), 0)
    pitch = np.log(rate / (lags[best] + np.clip(shift, -0.5, 0.5)))
    return np.interp(rows, rows[voiced], pitch[voiced])


def _autocorrelation(frames: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    return np.fft.irfft(np.abs(np.fft.rfft(frames, size)) ** 2, size)
