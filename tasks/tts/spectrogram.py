"""Log-mel spectrograms, and sound from them again by the method of Griffin and Lim (1984)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.data.mel_filters import mel_filters

Floats = NDArray[np.float64]

_ITERATIONS = 32
"""Of Griffin and Lim, as CAB has it"""


@dataclass(frozen=True)
class Spectrogram:
    """How sound becomes frames: frame t is centred at sample t * hop."""

    rate: int
    """Samples per second"""
    window: int
    """Samples of the Hann window, and size of the Fourier transform"""
    hop: int
    """Samples from one frame to the next"""
    bands: int
    low: float
    """Hz"""
    high: float
    """Hz"""
    floor: float
    """Smallest amplitude of a band, before the logarithm"""

    def frames(self, samples: int) -> int:
        """Frames of so many samples."""
        return 1 + samples // self.hop

    def amplitudes(self, samples: NDArray[np.floating]) -> Floats:
        """(T, window / 2 + 1) amplitudes of sound in -1..1, mirrored at its ends."""
        return np.abs(self._transform(np.asarray(samples, dtype=np.float64)))

    def log_mel(self, amplitudes: Floats) -> Floats:
        """(T, bands) natural logarithm of the amplitude in each band."""
        return np.log(np.maximum(amplitudes @ self._filters.T, self.floor))

    def sound(self, log_mel: NDArray[np.floating]) -> Floats:
        """(N,) samples whose spectrogram is near, with phases found by iteration; no draws."""
        wanted = np.maximum(np.exp(log_mel) @ np.linalg.pinv(self._filters).T, 0.0)
        # Phases of a sound that starts as a train of pulses: random ones would need a seed.
        spectrum = wanted.astype(np.complex128)
        for _ in range(_ITERATIONS):
            estimate = self._transform(self._inverse(spectrum))
            spectrum = wanted * np.exp(1j * np.angle(estimate))
        samples = self._inverse(spectrum)
        return samples / max(1.0, float(np.abs(samples).max()))

    @property
    def _filters(self) -> Floats:
        return mel_filters(self.rate, self.window, self.bands, self.low, self.high)

    @property
    def _hann(self) -> Floats:
        return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.window) / self.window)

    def _transform(self, samples: Floats) -> NDArray[np.complex128]:
        padded = np.pad(samples, self.window // 2, mode="reflect")
        starts = np.arange(self.frames(len(samples))) * self.hop
        return np.fft.rfft(padded[starts[:, None] + np.arange(self.window)] * self._hann)

    def _inverse(self, spectrum: NDArray[np.complex128]) -> Floats:
        """The samples whose frames are nearest in squared error."""
        pieces = np.fft.irfft(spectrum, self.window) * self._hann
        length = (len(spectrum) - 1) * self.hop + self.window
        total, weight = np.zeros(length), np.zeros(length)
        places = np.arange(len(spectrum))[:, None] * self.hop + np.arange(self.window)
        np.add.at(total, places, pieces)
        np.add.at(weight, places, np.broadcast_to(self._hann**2, places.shape))
        inner = slice(self.window // 2, length - self.window // 2)
        return total[inner] / np.maximum(weight[inner], 1e-8)


TELEPHONE = Spectrogram(8000, window=256, hop=128, bands=40, low=60, high=3900, floor=1e-3)
"""For speech of 8,000 samples a second"""

LJ_SPEECH = Spectrogram(22_050, window=1024, hop=256, bands=80, low=20, high=8000, floor=1e-5)
"""Bands, window and hop that fairseq takes for LJSpeech"""
