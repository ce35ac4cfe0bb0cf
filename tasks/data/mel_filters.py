"""Triangular filters, evenly spaced in mel, that turn a spectrum into bands."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mel_filters(rate: int, size: int, bands: int, low: float, high: float) -> NDArray[np.float64]:
    """(bands, size / 2 + 1) triangles of height one, each from the centre of the band below to
    that of the band above (mel = 2595 log10(1 + f / 700), as HTK has it).

    Args:
        rate: samples per second.
        size: of the Fourier transform.
        bands: number of triangles.
        low: where the first begins, in Hz.
        high: where the last ends, in Hz.
    """
    first, last = (2595 * np.log10(1 + f / 700) for f in (low, high))
    edges = 700 * (10 ** (np.linspace(first, last, bands + 2) / 2595) - 1)
    frequencies = np.arange(size // 2 + 1) * rate / size
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (frequencies - left) / (centre - left)
    falling = (right - frequencies) / (right - centre)
    return np.clip(np.minimum(rising, falling), 0, None)
