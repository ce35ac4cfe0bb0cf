"""FastSpeech 2 (Ren et al. 2021), with attention slots in the self attention of all FFT blocks.

As in fairseq, which CAB trained: characters, `Block` s, predictors of each character's duration,
pitch and energy, the embeddings of the last two added, every character repeated for as many frames
as it lasts, `Block` s again. In training, durations, pitch and energy are those of the recording.
Not as there: a convolution reads zeros at padding, so that a row does not depend on its batch.

Shapes: B batch, L characters, G groups of frames, E width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cab import Batch, Layer, Pattern, Slots
from tasks.backbones.multihead import MultiHeadAttention
from tasks.backbones.positions import sinusoid
from tasks.tts.synthesiser import Synthesiser
from tasks.tts.text import PADDING, TOKENS


@dataclass(frozen=True)
class FastSpeechSize:
    """Geometry."""

    dim: int
    heads: int
    layers: int
    """Of either stack"""
    hidden: int
    """Of the feed-forward convolutions"""
    kernel: int
    """Of the same; 1 makes them pointwise, and attention the only way from token to token"""
    dropout: float
    predictor: int
    """Width of the predictors"""
    predictor_dropout: float
    group: int = 1
    """Frames that one position of the decoder makes"""
    variances: bool = True
    """Whether pitch and energy are predicted and embedded"""
    pre_norm: bool = False
    position_base: float = 1e4


BINS = 256
"""Of pitch and energy, evenly spaced over `_REACH` standard deviations to either side"""

_REACH = 4.0


class Block(nn.Module):
    """Feed-forward Transformer block: self attention, then two convolutions, with residuals."""

    def __init__(self, layer: Layer, size: FastSpeechSize) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(
            layer,
            Pattern.NONCAUSAL_SELF,
            size.dim,
            size.heads,
        )
        padding = size.kernel // 2
        self.widen = nn.Conv1d(size.dim, size.hidden, size.kernel, padding=padding)
        self.narrow = nn.Conv1d(size.hidden, size.dim, size.kernel, padding=padding)
        self.attention_norm = nn.LayerNorm(size.dim)
        self.feed_forward_norm = nn.LayerNorm(size.dim)
        self.dropout = nn.Dropout(size.dropout)
        self.pre_norm = size.pre_norm

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, N, E) to (B, N, E); ``mask`` (B, N) is True where a token is valid."""
        if self.pre_norm:
            x = x + self.dropout(self.attention(self.attention_norm(x), query_mask=mask))
            return x + self.dropout(self._feed_forward(self.feed_forward_norm(x), mask))
        x = self.attention_norm(x + self.dropout(self.attention(x, query_mask=mask)))
        return self.feed_forward_norm(x + self.dropout(self._feed_forward(x, mask)))

    def _feed_forward(self, x: Tensor, mask: Tensor) -> Tensor:
        if self.widen.kernel_size == (1,):
            # The same numbers, several times faster on a CPU.
            hidden = F.relu(F.linear(x, self.widen.weight.squeeze(-1), self.widen.bias))
            return F.linear(hidden, self.narrow.weight.squeeze(-1), self.narrow.bias)
        # Zeros at padding, or a row's last tokens would see how long the batch's longest row is.
        valid = mask[:, None]
        hidden = F.relu(self.widen(x.transpose(1, 2) * valid)) * valid
        return self.narrow(hidden).transpose(1, 2)


class Predictor(nn.Module):
    """One number for every character: two convolutions of width 3, each with ReLU and norm."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Conv1d(dim, hidden, 3, padding=1)
        self.second = nn.Conv1d(hidden, hidden, 3, padding=1)
        self.first_norm = nn.LayerNorm(hidden)
        self.second_norm = nn.LayerNorm(hidden)
        self.readout = nn.Linear(hidden, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, L, E) and (B, L) to (B, L)."""
        for convolution, norm in (
            (self.first, self.first_norm),
            (self.second, self.second_norm),
        ):
            x = convolution((x * mask[..., None]).transpose(1, 2)).transpose(1, 2)
            x = self.dropout(norm(F.relu(x)))
        return self.readout(x).squeeze(-1)


class Variances(nn.Module):
    """Pitch or energy: predicted, cut into `BINS` and embedded."""

    edges: Tensor

    def __init__(self, size: FastSpeechSize) -> None:
        super().__init__()
        self.predictor = Predictor(size.dim, size.predictor, size.predictor_dropout)
        self.embedding = nn.Embedding(BINS, size.dim)
        nn.init.normal_(self.embedding.weight, std=size.dim**-0.5)
        edges = torch.linspace(-_REACH, _REACH, BINS - 1)
        self.register_buffer("edges", edges, persistent=False)

    def forward(self, x: Tensor, mask: Tensor, given: Tensor | None) -> tuple[Tensor, Tensor]:
        """Predictions (B, L) and embeddings (B, L, E): of the given values, else of these."""
        predicted = self.predictor(x, mask)
        values = predicted if given is None else given
        return predicted, self.embedding(torch.bucketize(values, self.edges))


@dataclass
class _Output:
    frames: Tensor
    """(B, G * group, bands)"""
    groups: Tensor
    """(B,)"""
    predictions: dict[str, Tensor]
    """(B, L) by name: durations as log(1 + groups)"""


class FastSpeech(Synthesiser):
    """See the module. Free synthesis is given nothing but the text."""

    positions: Tensor

    def __init__(
        self,
        slots: Slots,
        size: FastSpeechSize,
        *,
        bands: int,
        longest_text: int,
        longest_sound: int,
    ) -> None:
        """Build it.

        Args:
            slots: gives the attention modules.
            size: geometry.
            bands: of a frame.
            longest_text: tokens.
            longest_sound: frames.
        """
        super().__init__()
        self.size, self.group = size, size.group
        self.longest = math.ceil(longest_sound / size.group)
        self.embedding = nn.Embedding(TOKENS, size.dim, padding_idx=PADDING)
        nn.init.normal_(self.embedding.weight, std=size.dim**-0.5)
        wide = max(longest_text, self.longest)
        positions = sinusoid(wide, size.dim, size.position_base)
        self.register_buffer("positions", positions, persistent=False)
        self.text_scale = nn.Parameter(torch.ones(()))
        self.sound_scale = nn.Parameter(torch.ones(()))
        layers = 2 * size.layers
        self.encoder = nn.ModuleList(
            Block(slots.layer(index, of=layers, max_length=longest_text), size)
            for index in range(size.layers)
        )
        self.decoder = nn.ModuleList(
            Block(slots.layer(index, of=layers, max_length=self.longest), size)
            for index in range(size.layers, layers)
        )
        self.duration = Predictor(size.dim, size.predictor, size.predictor_dropout)
        names = ("pitch", "energy") if size.variances else ()
        self.variances = nn.ModuleDict({name: Variances(size) for name in names})
        norms = size.pre_norm
        self.encoder_norm = nn.LayerNorm(size.dim) if norms else nn.Identity()
        self.decoder_norm = nn.LayerNorm(size.dim) if norms else nn.Identity()
        self.dropout = nn.Dropout(size.dropout)
        self.readout = nn.Linear(size.dim, bands * size.group)

    def loss(self, batch: Batch) -> Tensor:
        """L1 of the frames, and squared errors of log durations, pitch and energy."""
        output = self._synthesise(batch, batch["durations"], batch)
        valid, text = batch["frame_mask"], batch["tokens"] != PADDING
        total = F.l1_loss(output.frames[valid], batch["frames"][valid])
        wanted = {**batch, "duration": torch.log1p(batch["durations"].float())}
        for name, predicted in output.predictions.items():
            total = total + F.mse_loss(predicted[text], wanted[name][text])
        return total

    def guided(self, batch: Batch) -> Tensor:
        """See `Synthesiser.guided`: durations, pitch and energy are given."""
        return self._synthesise(batch, batch["durations"], batch).frames

    def free(self, batch: Batch) -> list[Tensor]:
        """See `Synthesiser.free`."""
        output = self._synthesise(batch, None, {})
        counts = (output.groups * self.group).tolist()
        return [row[:count] for row, count in zip(output.frames, counts, strict=True)]

    def _synthesise(self, batch: Batch, durations: Tensor | None, given: Batch) -> _Output:
        tokens = batch["tokens"]
        mask = tokens != PADDING
        x = self.embedding(tokens) + self.text_scale * self.positions[: tokens.shape[1]]
        x = self.dropout(x)
        for block in self.encoder:
            x = block(x, mask)
        x = self.encoder_norm(x)
        predictions = {"duration": self.duration(x, mask)}
        for name, variance in self.variances.items():
            predictions[name], embedded = variance(x, mask, given.get(name))
            x = x + embedded
        if durations is None:
            durations = self._rounded(predictions["duration"], mask)
        owners, valid = repeated(durations)
        x = x.gather(1, owners[..., None].expand(-1, -1, x.shape[-1]))
        x = x + self.sound_scale * self.positions[: x.shape[1]]
        for block in self.decoder:
            x = block(x, valid)
        frames = self.readout(self.decoder_norm(x)).unflatten(-1, (self.group, -1)).flatten(1, 2)
        return _Output(frames, valid.sum(1), predictions)

    def _rounded(self, predicted: Tensor, mask: Tensor) -> Tensor:
        """(B, L) whole durations, from one group to the longest sound in all."""
        durations = (predicted.float().exp() - 1).round().clamp(0, self.longest).long() * mask
        durations[:, 0] += durations.sum(1) == 0
        passed = durations.cumsum(1).clamp_max(self.longest)
        return passed.diff(dim=1, prepend=torch.zeros_like(passed[:, :1]))


def repeated(durations: Tensor) -> tuple[Tensor, Tensor]:
    """The length regulator: (B, L) durations to the token of each position (B, G) and a mask.

    Positions behind the end of a row name its last token.
    """
    ends = durations.cumsum(1)
    counts = ends[:, -1:]
    places = torch.arange(int(counts.max()), device=durations.device).expand(len(durations), -1)
    owners = torch.searchsorted(ends, places.contiguous(), right=True)
    return owners.clamp_max(durations.shape[1] - 1), places < counts
