"""Windows of log-mel frames of speech, and the gaps that are hidden in them.

Frames are standardised, each band by its mean and deviation over all training frames. A window lies
within one clip; clips shorter than a window are left out. Gaps are whole blocks of frames, at an
offset that is drawn, so that a gap may begin at any frame; at the ends a block may be cut, and two
hidden blocks side by side make a longer gap.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.data.speech import Clip, load_speech
from tasks.problems.hidden import draw_hidden
from tasks.tts.spectrogram import TELEPHONE, Spectrogram

SPECTROGRAM: Spectrogram = TELEPHONE


class Frames:
    """The frames of the embedded speech by split, and where windows begin."""

    def __init__(self, dataset: str, window: int, stride: int) -> None:
        """Read and standardise.

        Args:
            dataset: an embedded speech data set.
            window: frames of a window.
            stride: frames from one window of a clip to its next; training windows may begin at
                any frame instead.
        """
        self.window = window
        raw = {split: _spectra(clips) for split, clips in load_speech(dataset).splits().items()}
        everything = torch.cat(raw["train"])
        self.mean, self.deviation = everything.mean(0), everything.std(0)
        """(bands,) of natural logarithms of amplitudes"""
        self._rows: dict[str, Tensor] = {}
        self.starts: dict[str, Tensor] = {}
        """(N,) first rows of the windows of a split, ``stride`` apart"""
        for split, clips in raw.items():
            long = [(clip - self.mean) / self.deviation for clip in clips if len(clip) >= window]
            self._rows[split] = torch.cat(long)
            self.starts[split] = _starts(long, window, stride)
            if split == "train":
                self.training_starts = _starts(long, window, 1)
                """(N,) of every window"""

    def windows(self, split: str, starts: Tensor) -> Tensor:
        """(B, window, bands) that begin at the (B,) rows."""
        return self._rows[split][starts[:, None] + torch.arange(self.window)]

    def log_mel(self, frames: Tensor) -> NDArray[np.float64]:
        """Standardised frames as natural logarithms of amplitudes again, float64."""
        return (frames * self.deviation + self.mean).double().numpy()


def _spectra(clips: Sequence[Clip]) -> list[Tensor]:
    """(T, bands) float32 of each clip."""
    return [
        torch.from_numpy(SPECTROGRAM.log_mel(SPECTROGRAM.amplitudes(clip.samples.numpy()))).float()
        for clip in clips
    ]


def _starts(clips: Sequence[Tensor], window: int, stride: int) -> Tensor:
    begin, starts = 0, []
    for clip in clips:
        starts.append(begin + torch.arange(0, len(clip) - window + 1, stride))
        begin += len(clip)
    return torch.cat(starts)


def draw_gaps(batch: int, frames: int, hidden: int, gap: int, generator: torch.Generator) -> Tensor:
    """(B, frames) bool, True where hidden: ``hidden`` frames in blocks of ``gap``.

    Raises:
        ValueError: frames or hidden frames are no whole number of blocks.
    """
    if frames % gap or hidden % gap:
        raise ValueError(f"{hidden} of {frames} frames in blocks of {gap}")
    blocks = draw_hidden(batch, frames // gap, hidden // gap, generator)
    offset = torch.randint(gap, (batch, 1), generator=generator)
    places = (torch.arange(frames) + offset) % frames
    return blocks.repeat_interleave(gap, 1).gather(1, places)
