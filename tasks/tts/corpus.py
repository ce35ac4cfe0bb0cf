"""Utterances as tensors, and batches of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cab import Batch
from tasks.data.embedded import SPLITS
from tasks.data.speech import Clip
from tasks.tts.pitch import log_pitch
from tasks.tts.spectrogram import Spectrogram
from tasks.tts.text import PADDING, tokens


@dataclass(frozen=True)
class Utterance:
    """T frames and L tokens, the last of which is the end."""

    id: str
    text: str
    tokens: Tensor
    """(L,) int64"""
    frames: Tensor
    """(T, bands) log-mel amplitudes, in standard deviations from the training mean of a band"""
    durations: Tensor
    """(L,) int64 frames of each token, T in all; zero for the end"""
    pitch: Tensor
    """(L,) mean logarithm of the fundamental frequency, standardised"""
    energy: Tensor
    """(L,) mean logarithm of the energy, standardised"""


class Corpus:
    """The utterances of three splits, standardised by the first.

    Args:
        clips: by split. Durations may be missing (zero); then pitch and energy are too.
        spectrogram: how their sound becomes frames.
        variances: whether pitch and energy are computed; zero otherwise.
    """

    def __init__(
        self,
        clips: Mapping[str, Sequence[Clip]],
        spectrogram: Spectrogram,
        variances: bool = False,
    ) -> None:
        self.spectrogram = spectrogram
        raw = {
            split: [_Raw(clip, spectrogram, variances) for clip in clips[split]] for split in SPLITS
        }
        everything = np.concatenate([one.frames for one in raw["train"]])
        self.mean, self.deviation = everything.mean(0), everything.std(0)
        """(bands,)"""
        scale = {
            name: _Scale.of([getattr(one, name) for one in raw["train"]])
            for name in ("pitch", "energy")
        }
        self.utterances = {
            split: [
                Utterance(
                    one.clip.id,
                    one.clip.text,
                    torch.tensor(tokens(one.clip.text)),
                    torch.from_numpy((one.frames - self.mean) / self.deviation),
                    one.durations,
                    scale["pitch"].standardised(one.pitch),
                    scale["energy"].standardised(one.energy),
                )
                for one in members
            ]
            for split, members in raw.items()
        }

    @property
    def longest_text(self) -> int:
        """Tokens of the longest text, its end included."""
        return max(len(one.tokens) for members in self.utterances.values() for one in members)

    @property
    def longest_sound(self) -> int:
        """Frames of the longest utterance."""
        return max(len(one.frames) for members in self.utterances.values() for one in members)

    def log_mel(self, frames: Tensor) -> NDArray[np.float64]:
        """(T, bands) log-mel amplitudes of standardised frames."""
        values = frames.detach().float().cpu().numpy()
        return values.astype(np.float64) * self.deviation + self.mean

    @staticmethod
    def batch(utterances: Sequence[Utterance], group: int) -> Batch:
        """Padded tensors of B utterances, cut into groups of so many frames.

        Returns:
            ``tokens`` (B, L): `PADDING` behind the end; ``frames`` (B, G * group, bands) and
            ``frame_mask`` (B, G * group), True where a frame is of the recording;
            ``groups`` (B,): groups of each, G at most; ``durations`` (B, L): groups of each token;
            ``pitch`` and ``energy`` (B, L).
        """
        lengths = torch.tensor([len(one.frames) for one in utterances])
        groups = (lengths + group - 1) // group
        wide = int(groups.max()) * group
        frames = torch.zeros(len(utterances), wide, utterances[0].frames.shape[1])
        for row, one in enumerate(utterances):
            frames[row, : lengths[row]] = one.frames

        def padded(tensors: list[Tensor]) -> Tensor:
            return pad_sequence(tensors, batch_first=True, padding_value=PADDING)

        return {
            "tokens": padded([one.tokens for one in utterances]),
            "frames": frames,
            "frame_mask": torch.arange(wide) < lengths[:, None],
            "groups": groups,
            "durations": padded(
                [
                    grouped(one.durations, group, int(count))
                    for one, count in zip(utterances, groups, strict=True)
                ]
            ),
            "pitch": padded([one.pitch for one in utterances]),
            "energy": padded([one.energy for one in utterances]),
        }


def grouped(durations: Tensor, group: int, groups: int) -> Tensor:
    """Groups of each token: a group belongs to the token of the frame in its middle."""
    if not durations.any():
        return durations
    ends = durations.cumsum(0)
    middles = (torch.arange(groups) * group + group // 2).clamp_max(int(ends[-1]) - 1)
    owners = torch.searchsorted(ends, middles, right=True)
    return torch.bincount(owners, minlength=len(durations))


class _Raw:
    """Features of one clip before standardisation."""

    def __init__(self, clip: Clip, spectrogram: Spectrogram, variances: bool) -> None:
        self.clip = clip
        samples = clip.samples.numpy()
        amplitudes = spectrogram.amplitudes(samples)
        self.frames = spectrogram.log_mel(amplitudes).astype(np.float32)
        # Frame t is centred at sample t * hop; the last may be centred behind the last sample.
        ends = clip.durations.cumsum(0)
        self.durations = torch.zeros(len(clip.text) + 1, dtype=torch.int64)
        self.pitch = self.energy = np.zeros(len(clip.text) + 1, np.float32)
        if not len(ends):
            return
        centres = (torch.arange(len(amplitudes)) * spectrogram.hop).clamp_max(int(ends[-1]) - 1)
        owners = torch.searchsorted(ends, centres, right=True)
        self.durations = torch.bincount(owners, minlength=len(clip.text) + 1)
        if variances:
            energy = np.log1p(np.linalg.norm(amplitudes, axis=1))
            self.energy = _token_means(energy, owners.numpy(), len(self.durations))
            pitch = log_pitch(samples, spectrogram.rate, spectrogram.hop)
            self.pitch = _token_means(pitch, owners.numpy(), len(self.durations))


def _token_means(
    values: NDArray[np.floating], owners: NDArray[np.int64], count: int
) -> NDArray[np.float32]:
    """(count,) means over the frames of a token; NaN where it has none."""
    sums = np.bincount(owners, values, count)
    frames = np.bincount(owners, minlength=count)
    return np.where(frames > 0, sums / np.maximum(frames, 1), np.nan).astype(np.float32)


@dataclass(frozen=True)
class _Scale:
    mean: float
    deviation: float

    @classmethod
    def of(cls, clips: list[NDArray[np.float32]]) -> _Scale:
        everything = np.concatenate(clips)
        deviation = float(np.nanstd(everything))
        return cls(float(np.nanmean(everything)), deviation if deviation > 0 else 1.0)

    def standardised(self, values: NDArray[np.float32]) -> Tensor:
        """A token without frames gets the mean."""
        return torch.nan_to_num(torch.from_numpy((values - self.mean) / self.deviation))
