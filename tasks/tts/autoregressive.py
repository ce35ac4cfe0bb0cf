"""What the autoregressive backbones share: prenet, postnet, losses and decoding.

A position of the decoder reads the group of frames before it and makes the next. Transformer-TTS
(Li et al. 2019) takes both nets from Tacotron 2 (Shen et al. 2018), as does fairseq, which CAB
trained. The prenet's dropout is off in evaluation, where Tacotron 2 keeps it on, so that a model
has one score.
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cab import Batch
from tasks.tts.synthesiser import Synthesiser
from tasks.tts.text import PADDING, TOKENS

STOP_WEIGHT = 5.0
"""Of the one group of an utterance that is its last (fairseq's ``bce-pos-weight``)"""


@dataclass(frozen=True)
class AutoregressiveSize:
    """Geometry."""

    dim: int
    heads: int
    layers: int
    """Of either stack"""
    dropout: float
    group: int
    """Frames a position (the reduction factor)"""
    prenet: tuple[int, ...]
    """Widths of its layers; a narrow one hides the frames before from the decoder"""
    convolutions: int = 0
    """Before the encoder"""
    postnet: int = 0
    """Convolutions that correct the frames"""
    stop: bool = False
    """Whether the model says where the sound ends; otherwise its length is given"""
    aligned: bool = False
    """Whether attention starts along the diagonal: text positions are counted at the rate of the
    sound, which takes its length, and queries and keys start alike"""
    position_base: float = 1e4


class Prenet(nn.Sequential):
    """Linear layers with ReLU and dropout, and a last one to the width of the model."""

    def __init__(self, inputs: int, hidden: Sequence[int], dim: int) -> None:
        layers: list[nn.Module] = []
        for before, width in zip([inputs, *hidden], hidden, strict=False):
            layers += [nn.Linear(before, width), nn.ReLU(), nn.Dropout(0.5)]
        super().__init__(*layers, nn.Linear(hidden[-1], dim))


class Postnet(nn.Module):
    """Convolutions of width 5 along time, 512 channels, with batch norm, tanh and dropout."""

    _CHANNELS = 512

    def __init__(self, dim: int, layers: int) -> None:
        super().__init__()
        widths = [dim, *[self._CHANNELS] * (layers - 1), dim]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(inner, outer, 5, padding=2) for inner, outer in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in widths[1:])
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, G, E) to (B, G, E); ``mask`` (B, G) is True where a group is valid."""
        x = x.transpose(1, 2)
        last = len(self.convolutions) - 1
        for number, (convolution, norm) in enumerate(
            zip(self.convolutions, self.norms, strict=True)
        ):
            x = norm(convolution(x * mask[:, None]))
            x = self.dropout(x if number == last else x.tanh())
        return x.transpose(1, 2)


def sinusoid_at(places: Tensor, dim: int, base: float) -> Tensor:
    """(..., dim) sines and cosines of places (...) that need not be whole."""
    angle = places[..., None] / base ** (torch.arange(0, dim, 2, device=places.device) / dim)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


@dataclass
class Source:
    """What the decoder reads of the text."""

    tokens: Tensor
    """(B, L, E)"""
    mask: Tensor
    """(B, L) True where a token is valid"""


class Autoregressive(Synthesiser):
    """The base class: a subclass encodes the text and decodes with it.

    Free synthesis without a stop is given the length of the recording.
    """

    def __init__(self, size: AutoregressiveSize, bands: int, longest_sound: int) -> None:
        super().__init__()
        self.size, self.group, self.bands = size, size.group, bands
        self.longest = math.ceil(longest_sound / size.group)
        wide = bands * size.group
        self.embedding = nn.Embedding(TOKENS, size.dim, padding_idx=PADDING)
        self.prenet = Prenet(wide, size.prenet, size.dim)
        self.text_scale = nn.Parameter(torch.ones(()))
        self.sound_scale = nn.Parameter(torch.ones(()))
        self.norm = nn.LayerNorm(size.dim)
        self.readout = nn.Linear(size.dim, wide)
        self.stop = nn.Linear(size.dim, 1) if size.stop else None
        self.postnet = Postnet(wide, size.postnet) if size.postnet else None

    @abstractmethod
    def encode(self, tokens: Tensor, groups: Tensor) -> Source:
        """The text (B, L); ``groups`` (B,) is only read where the start is aligned."""

    @abstractmethod
    def decode(self, before: Tensor, source: Source, mask: Tensor) -> Tensor:
        """(B, G, E) from the groups before each (B, G, bands * group) and a mask (B, G)."""

    def text_places(self, tokens: Tensor, groups: Tensor) -> Tensor:
        """(B, L) positions of the tokens, in groups of the sound where the start is aligned."""
        places = torch.arange(tokens.shape[1], device=tokens.device).float().expand(tokens.shape)
        if not self.size.aligned:
            return places
        return places * (groups / (tokens != PADDING).sum(1))[:, None]

    def positions(self, places: Tensor) -> Tensor:
        """(..., E)"""
        return sinusoid_at(places, self.size.dim, self.size.position_base)

    def loss(self, batch: Batch) -> Tensor:
        """L1 of the frames; with a postnet L1 and squared error before and behind it; with a stop
        the cross entropy of where it is.
        """
        first, frames, hidden, mask = self._forced(batch)
        valid, wanted = batch["frame_mask"], batch["frames"][batch["frame_mask"]]
        total = F.l1_loss(frames[valid], wanted)
        if self.postnet is not None:
            total = total + F.l1_loss(first[valid], wanted)
            total = total + F.mse_loss(frames[valid], wanted) + F.mse_loss(first[valid], wanted)
        if self.stop is not None:
            scores = self.stop(hidden).squeeze(-1)
            last = torch.arange(mask.shape[1], device=mask.device) == batch["groups"][:, None] - 1
            total = total + F.binary_cross_entropy_with_logits(
                scores[mask], last[mask].float(), pos_weight=scores.new_tensor(STOP_WEIGHT)
            )
        return total

    def guided(self, batch: Batch) -> Tensor:
        """See `Synthesiser.guided`: the recording's frames before each group are given."""
        return self._forced(batch)[1]

    def forced(self, batch: Batch) -> Tensor:
        """(B, T, bands) frames before the postnet, each group from the recording's before it.

        Frames behind the last whole group are left out.
        """
        whole = batch["frames"].shape[1] // self.group * self.group
        if not whole:
            return batch["frames"][:, :0]
        return self._forced({**batch, "frames": batch["frames"][:, :whole]})[0]

    def free(self, batch: Batch) -> list[Tensor]:
        """See `Synthesiser.free`; without a stop the length of the recording is given."""
        source = self.encode(batch["tokens"], batch["groups"])
        rows = len(batch["tokens"])
        limit = self.longest if self.stop is not None else int(batch["groups"].max())
        made = batch["frames"].new_zeros(rows, 0, self.bands * self.group)
        ends = torch.full((rows,), limit, device=made.device)
        for step in range(limit):
            mask = made.new_ones(rows, step + 1, dtype=torch.bool)
            hidden = self.decode(F.pad(made, (0, 0, 1, 0)), source, mask)[:, -1:]
            made = torch.cat([made, self.readout(hidden).to(made)], dim=1)
            if self.stop is not None:
                over = self.stop(hidden).flatten() > 0
                ends = torch.where(over & (ends == limit), step + 1, ends)
                if (ends <= step + 1).all():
                    break
        if self.stop is None:
            ends = batch["groups"]
        mask = torch.arange(made.shape[1], device=made.device) < ends[:, None]
        frames = self._corrected(made, mask).unflatten(-1, (self.group, -1)).flatten(1, 2)
        counts = ends * self.group if self.stop is not None else batch["frame_mask"].sum(1)
        return [row[:count] for row, count in zip(frames, counts.tolist(), strict=True)]

    def _forced(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Frames before and behind the postnet, hidden states, and the mask of groups."""
        groups = batch["frames"].unflatten(1, (-1, self.group)).flatten(2)
        mask = torch.arange(groups.shape[1], device=groups.device) < batch["groups"][:, None]
        source = self.encode(batch["tokens"], batch["groups"])
        hidden = self.decode(F.pad(groups, (0, 0, 1, -1)), source, mask)
        first = self.readout(hidden)
        last = self._corrected(first, mask)
        one, other = (x.unflatten(-1, (self.group, -1)).flatten(1, 2) for x in (first, last))
        return one, other, hidden, mask

    def _corrected(self, groups: Tensor, mask: Tensor) -> Tensor:
        return groups if self.postnet is None else groups + self.postnet(groups, mask)
