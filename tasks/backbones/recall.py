"""Attention-only backbones of the recall probes, which start near the circuit that recall needs.

To recall the value of a key from a stream ``... key value ... key`` takes two steps (the induction
circuit of Olsson et al. 2022, arXiv 2209.11895): a first layer lets every token know its
predecessor, a second finds the token whose predecessor is the key asked for, and copies it. Left to
chance, that circuit takes many thousand steps to form. Here it is where training *starts*: the
residual stream has two halves, what a token is and where it stands, and

* the first layer's queries and keys read where: the key's rotation by one place makes the match
  largest at the token before. What it copies is turned by a fixed orthogonal matrix, so that a
  predecessor is not mistaken for a token of its own;
* the second layer's queries and keys read what, the keys through the inverse of that matrix;
* values and outputs copy, and the readout is tied to the embedding.

All of it is trained from there, and it is the same for every mechanism. It favours mechanisms that
weigh by the likeness of queries and keys; what remains to be measured is how sharply and how much
they can tell apart. No feed-forward layers and no convolutions, so nothing but the slots moves
information between tokens. In cross attention one layer is enough: a source token holds a pair,
the key in one half and the value in the other.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cab import Layer, Pattern, Slots
from tasks.backbones.multihead import MultiHeadAttention

FASTEST, SPREAD = math.pi, 100.0
"""Largest frequency of a place, in radians per token, and its ratio to the smallest: neighbours
differ most, and no two places of a long stream are alike"""

SHARPNESS = 12.0
"""Logit of a perfect match at the start, in every head"""


def places(length: int, width: int) -> Tensor:
    """(length, width) sines and cosines of geometrically spaced frequencies, of unit variance.

    First all sines, then all cosines. They are not trained, so that places beyond the trained
    length are what they would have been.
    """
    steps = torch.arange(width // 2, dtype=torch.float32) / max(1, width // 2 - 1)
    angle = torch.arange(length, dtype=torch.float32)[:, None] * (FASTEST * SPREAD**-steps)
    return math.sqrt(2) * torch.cat([angle.sin(), angle.cos()], dim=-1)


def one_place_on(width: int) -> Tensor:
    """(width, width) rotation R with ``places[t + 1] = R places[t]``."""
    steps = torch.arange(width // 2, dtype=torch.float32) / max(1, width // 2 - 1)
    angle = FASTEST * SPREAD**-steps
    cos, sin = torch.diag(angle.cos()), torch.diag(angle.sin())
    return torch.cat([torch.cat([cos, sin], 1), torch.cat([-sin, cos], 1)])


class RecallLayer(nn.Module):
    """Attention behind a norm, with a residual."""

    def __init__(
        self,
        layer: Layer,
        pattern: Pattern,
        dim: int,
        heads: int,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = MultiHeadAttention(
            layer,
            pattern,
            dim,
            heads,
        )

    def forward(self, x: Tensor, source: Tensor | None = None) -> Tensor:
        """(B, Lq, E), in a cross slot with a source (B, Lk, E), to (B, Lq, E)."""
        keys = None if source is None else self.norm(source)
        return x + self.attention(self.norm(x), keys)

    @torch.no_grad()
    def start(self, reads: slice, turn: Tensor, writes: Tensor) -> None:
        """Start as a lookup.

        Args:
            reads: the half that queries and keys are compared in.
            turn: (E/2, E/2) orthogonal; the match is largest where the query's half equals
                ``turn`` times the key's.
            writes: (E, E) from the attended token to what is added.
        """
        attention = self.attention
        dim = attention.query.out_features
        half = reads.stop - reads.start
        likeness = nn.init.orthogonal_(torch.empty(dim, half))
        likeness *= math.sqrt(SHARPNESS * attention.heads * math.sqrt(dim / attention.heads) / half)
        for linear in (attention.query, attention.key, attention.value, attention.output):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        attention.query.weight[:, reads] = likeness
        attention.key.weight[:, reads] = likeness @ turn
        nn.init.eye_(attention.value.weight)
        attention.output.weight.copy_(writes)


class StreamRecall(nn.Module):
    """Two causal layers over a stream of tokens, started as an induction circuit."""

    def __init__(
        self, slots: Slots, *, tokens: int, classes: int, dim: int, heads: int, max_length: int
    ) -> None:
        """Build the stack.

        Args:
            slots: gives the attention modules.
            tokens: number of input ids. classes: the last of them, which are read out.
            dim: width E of the residual stream, half of it for what a token is.
            heads: of every slot.
            max_length: longest stream.
        """
        super().__init__()
        self.width, self.classes = dim // 2, classes
        self.token = nn.Embedding(tokens, self.width)
        self.layers = nn.ModuleList(
            RecallLayer(
                slots.layer(index, of=2, max_length=max_length),
                Pattern.CAUSAL_SELF,
                dim,
                heads,
            )
            for index in range(2)
        )
        self.norm = nn.LayerNorm(dim)
        what, where = slice(0, self.width), slice(self.width, dim)
        mark = nn.init.orthogonal_(torch.empty(self.width, self.width))
        marked, copied = torch.zeros(dim, dim), torch.zeros(dim, dim)
        marked[what, what], copied[what, what] = mark, torch.eye(self.width)
        first, second = self.layers
        assert isinstance(first, RecallLayer)
        assert isinstance(second, RecallLayer)
        first.start(where, one_place_on(self.width), marked)
        second.start(what, mark.T, copied)

    def forward(self, tokens: Tensor, read: Tensor) -> Tensor:
        """Logits (B, M, classes) at the places ``read`` (B, M) of the streams ``tokens`` (B, L)."""
        what = self.token(tokens)
        where = places(tokens.shape[1], self.width).to(what).expand_as(what)
        x = torch.cat([what, where], dim=-1)
        for layer in self.layers:
            x = layer(x)
        x = x.gather(1, read[..., None].expand(-1, -1, x.shape[-1]))
        return _tied(self.norm(x)[..., : self.width], self.token, self.classes)


class SourceRecall(nn.Module):
    """One cross layer from keys that are asked for to a source of pairs, started as a lookup."""

    def __init__(
        self, slots: Slots, *, tokens: int, classes: int, dim: int, heads: int, max_length: int
    ) -> None:
        """See `StreamRecall`."""
        super().__init__()
        self.width, self.classes = dim // 2, classes
        self.token = nn.Embedding(tokens, self.width)
        self.layers = nn.ModuleList(
            [
                RecallLayer(
                    slots.layer(0, of=1, max_length=max_length),
                    Pattern.NONCAUSAL_CROSS,
                    dim,
                    heads,
                )
            ]
        )
        self.norm = nn.LayerNorm(dim)
        layer = self.layers[0]
        assert isinstance(layer, RecallLayer)
        layer.start(slice(0, self.width), torch.eye(self.width), torch.eye(dim))

    def forward(self, asked: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Logits (B, M, classes) for the keys ``asked`` (B, M) from pairs, (B, P) each."""
        source = torch.cat([self.token(keys), self.token(values)], dim=-1)
        asking = self.token(asked)
        x = torch.cat([asking, torch.zeros_like(asking)], dim=-1)
        for layer in self.layers:
            x = layer(x, source)
        return _tied(self.norm(x)[..., self.width :], self.token, self.classes)


def _tied(x: Tensor, token: nn.Embedding, classes: int) -> Tensor:
    """Logits of the last ``classes`` tokens by likeness to their embeddings."""
    return F.linear(x, token.weight[-classes:]) / math.sqrt(x.shape[-1])
