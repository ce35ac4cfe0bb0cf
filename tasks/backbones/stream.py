"""A stack of causal layers over tokens that the caller makes, or over a stream of levels.

Pixels, frames of sound, coordinates: what tokens are and what is predicted is the task's. Attention
starts as a look-up by likeness, for every mechanism alike: one orthogonal matrix, times a
sharpness, projects queries and keys, and values pass through. A token that holds where it stands,
or where its prediction will stand, so begins with an eye on the places near there; from a random
start a short run is over before attention knows its neighbours.

Shapes: B batch, L tokens, E width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cab import Pattern, Slots
from tasks.backbones.multihead import start_as_copy, start_as_similarity
from tasks.backbones.transformer import SelfAttentionLayer


class Stream(nn.Module):
    """Pre-norm causal layers, a final norm and a linear readout at every place."""

    def __init__(
        self,
        slots: Slots,
        *,
        dim: int,
        heads: int,
        layers: int,
        length: int,
        outputs: int,
        sharpness: float,
        expansion: int = 2,
        dropout: float = 0.0,
    ) -> None:
        """Build the stack.

        Args:
            slots: gives the attention modules.
            dim: width of a token.
            heads: of every slot.
            layers: number of layers.
            length: longest sequence.
            outputs: numbers read out at a place.
            sharpness: factor of the query and of the key projection at the start.
            expansion: of the feed-forward layers, hidden width by ``dim``.
            dropout: of what attention and feed-forward layers add.
        """
        super().__init__()
        stack = [
            SelfAttentionLayer(
                slots.layer(index, of=layers, max_length=length),
                Pattern.CAUSAL_SELF,
                dim,
                heads,
                expansion=expansion,
                dropout=dropout,
            )
            for index in range(layers)
        ]
        for layer in stack:
            start_as_similarity(layer.attention)
            start_as_copy(layer.attention)
            with torch.no_grad():
                layer.attention.query.weight.mul_(sharpness)
                layer.attention.key.weight.mul_(sharpness)
        self.layers = nn.ModuleList(stack)
        self.norm = nn.LayerNorm(dim)
        self.readout = nn.Linear(dim, outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, L, E) to (B, L, outputs); place t is read from the tokens up to t."""
        x = tokens
        for layer in self.layers:
            x = layer(x)
        return self.readout(self.norm(x))


class LevelStream(nn.Module):
    """Whole numbers with an order, such as grey levels, each predicted from those before it.

    A token is an embedding of the previous level, plus a linear map of that level as a number, plus
    a trained vector for the place of the level that is *predicted*. So a query that looks for its
    like finds tokens that predicted near by.
    """

    def __init__(
        self,
        slots: Slots,
        places: Tensor,
        *,
        levels: int,
        heads: int,
        layers: int,
        sharpness: float,
        dropout: float = 0.0,
    ) -> None:
        """Build the model.

        Args:
            slots: gives the attention modules.
            places: (L, E) what the vectors of the L places start as.
            levels: kinds of levels.
            heads: of every slot.
            layers: number of layers.
            sharpness: see `Stream`.
            dropout: see `Stream`.
        """
        super().__init__()
        length, dim = places.shape
        self.levels = levels
        self.token = nn.Embedding(levels + 1, dim)
        self.value = nn.Linear(1, dim)
        self.place = nn.Parameter(places.clone())
        self.stream = Stream(
            slots,
            dim=dim,
            heads=heads,
            layers=layers,
            length=length,
            outputs=levels,
            sharpness=sharpness,
            dropout=dropout,
        )

    def forward(self, stream: Tensor) -> Tensor:
        """(B, L) levels to (B, L, levels) scores of each from those before it.

        L may be less than the longest.
        """
        before = F.pad(stream[:, :-1], (1, 0), value=self.levels)
        number = before[..., None] / self.levels - 0.5
        tokens = self.token(before) + self.value(number) + self.place[: stream.shape[1]]
        return self.stream(tokens)

    @torch.no_grad()
    def completed(self, stream: Tensor, known: int, generator: torch.Generator) -> Tensor:
        """(B, L) streams whose levels after the first ``known`` are drawn from the model.

        Args:
            stream: (B, L) levels.
            known: levels that are kept.
            generator: of the draws, on the CPU.
        """
        drawn = stream.clone()
        for place in range(known, stream.shape[1]):
            scores = self(drawn[:, : place + 1].to(self.place.device))[:, -1]
            odds = scores.float().softmax(-1).cpu()
            drawn[:, place] = torch.multinomial(odds, 1, generator=generator)[:, 0]
        return drawn
