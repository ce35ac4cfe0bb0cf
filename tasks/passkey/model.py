"""The backbone: a stream of recall that may begin at any place."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from cab import Slots
from tasks.backbones.recall import StreamRecall, places


class PlacedRecall(StreamRecall):
    """`StreamRecall` whose tokens stand at places that the caller gives.

    The codes of places are not trained, but what reads them is. A model that has seen streams begin
    everywhere meets no place in a long stream that it has not met in a short one; what remains new
    there is the number of tokens.
    """

    codes: Tensor

    def __init__(
        self, slots: Slots, *, tokens: int, classes: int, dim: int, heads: int, max_length: int
    ) -> None:
        """See `StreamRecall`; ``max_length`` is also the number of places."""
        super().__init__(
            slots, tokens=tokens, classes=classes, dim=dim, heads=heads, max_length=max_length
        )
        self.register_buffer("codes", places(max_length, self.width), persistent=False)

    def forward(self, tokens: Tensor, read: Tensor, first: Tensor | None = None) -> Tensor:
        """Logits (B, M, classes) at ``read`` (B, M) of the streams ``tokens`` (B, L).

        Args:
            tokens: ids.
            read: counted from a stream's first token.
            first: (B,) place of that token; None: 0.
        """
        at = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        if first is not None:
            at = at + first[:, None]
        what = self.token(tokens)
        x = torch.cat([what, self.codes[at].to(what)], dim=-1)
        for layer in self.layers:
            x = layer(x)
        x = x.gather(1, read[..., None].expand(-1, -1, x.shape[-1]))
        what = self.norm(x)[..., : self.width]
        # Tied to the embedding, as in `StreamRecall`.
        return F.linear(what, self.token.weight[-self.classes :]) / math.sqrt(self.width)
