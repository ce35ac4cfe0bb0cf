"""Speech as frames of log-mel bands, and what regression on the last frames makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.data.speech import load_speech
from tasks.tts.spectrogram import TELEPHONE

LAST = 4
"""Frames that the regression sees"""

PENALTY = 1e-2
"""Of the regression's weights, against a mean squared error of standardised bands"""


@dataclass(frozen=True)
class Frames:
    """The clips of each split joined end to end, as a telephone menu plays its prompts."""

    splits: Mapping[str, Tensor]
    """By split, (T, bands) float32, every band standardised over the training split"""
    mean: Tensor
    """(bands,) of the training split"""
    deviation: Tensor
    """(bands,) likewise"""

    @classmethod
    def read(cls) -> Frames:
        """Of the embedded prompts.

        Raises:
            DataError: the embedded file is missing or altered.
        """
        found = {
            split: torch.cat([_log_mel(clip.samples) for clip in clips])
            for split, clips in load_speech().splits().items()
        }
        mean, deviation = found["train"].mean(0), found["train"].std(0)
        scaled = {split: ((x - mean) / deviation).float() for split, x in found.items()}
        return cls(scaled, mean, deviation)

    def windows(self, split: str, starts: Tensor, length: int) -> Tensor:
        """(B, length, bands) frames that follow each of the (B,) ``starts``."""
        return self.splits[split][starts[:, None] + torch.arange(length)]

    def even_starts(self, split: str, length: int, most: int) -> Tensor:
        """Starts of at most ``most`` disjoint windows, spread evenly over a split."""
        available = len(self.splits[split]) // length
        chosen = torch.linspace(0, available - 1, min(most, available), dtype=torch.float64)
        return chosen.round().long() * length

    def log_mel(self, standardised: Tensor) -> Tensor:
        """(..., bands) natural logarithms of amplitudes of standardised frames."""
        return standardised.double() * self.deviation + self.mean


def _log_mel(samples: Tensor) -> Tensor:
    """(T, bands) float64."""
    return torch.from_numpy(TELEPHONE.log_mel(TELEPHONE.amplitudes(samples.numpy())))


def last_frames(windows: Tensor, last: int = LAST) -> Tensor:
    """(B, T, last * bands): a frame and those before it, the latest first; zeros before the start.

    Args:
        windows: (B, T, bands).
        last: frames that are seen.
    """
    shifted = [windows]
    for lag in range(1, last):
        before = torch.zeros_like(windows)
        before[:, lag:] = windows[:, :-lag]
        shifted.append(before)
    return torch.cat(shifted, dim=-1)


def ridge(inputs: Tensor, targets: Tensor, penalty: float = PENALTY) -> Tensor:
    """(F + 1, O) float64 weights of ridge regression, the intercept last and not penalised.

    Args:
        inputs: (N, F).
        targets: (N, O).
        penalty: lambda in |y - Xw - b|^2 / N + lambda |w|^2.
    """
    x, y = inputs.double(), targets.double()
    centre, middle = x.mean(0), y.mean(0)
    x, y = x - centre, y - middle
    gram = x.T @ x / len(x)
    gram.diagonal().add_(penalty)
    weights = torch.linalg.solve(gram, x.T @ y / len(x))
    return torch.cat([weights, (middle - centre @ weights)[None]])


def regressed(inputs: Tensor, weights: Tensor) -> Tensor:
    """(..., O) float64 predictions of `ridge`."""
    return inputs.double() @ weights[:-1] + weights[-1]
