"""PoinTr (Yu et al. 2021): a set-to-set Transformer from point proxies to patches of a surface.

As published, much of the input reaches the output around attention: by pooled features, by nearest
tokens, and as it is. CAB measured no loss without self attention. `Geometry.published_paths` says
whether these paths are there.

Shapes: B batch, N points seen, M queries, S points of a patch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cab import Attention, Slots
from tasks.point_completion.geometry import farthest_points, nearest, take
from tasks.point_completion.grouper import (
    PUBLISHED_NEIGHBOURS,
    PUBLISHED_STAGES,
    Grouper,
    Stage,
)
from tasks.point_completion.heads import (
    CentreShift,
    Folding,
    LearnedQueries,
    PooledFeatures,
    QueryGenerator,
)
from tasks.point_completion.layers import NEIGHBOURS, DecoderLayer, EncoderLayer, TokenMlp

_POSITION_HIDDEN = 128
_PATCH_START = 0.2
"""By torch's own, which would spread the patch of a learned centre over much of the cube"""


@dataclass(frozen=True)
class Geometry:
    """Sizes, and which of PoinTr's paths around attention there are."""

    dim: int
    heads: int
    encoder_layers: int
    decoder_layers: int
    queries: int
    patch_side: int
    """A query becomes a patch of the square of this many points"""
    folding_hidden: int
    stages: tuple[Stage, ...]
    """Of the grouper; the last leaves the point proxies"""
    neighbours: int
    """Of its edge convolutions"""
    memory: int = 0
    """Proxies that the decoder reads, the first by farthest point sampling; 0: all"""
    published_paths: bool = True
    """Whether the first layers see nearest tokens, queries are made from the pooled input, patches
    from pooled queries, and the input is part of the output"""

    @property
    def proxies(self) -> int:
        """Point proxies that the encoder reads."""
        return self.stages[-1].points

    @property
    def predicted(self) -> int:
        """Points that the model predicts."""
        return self.queries * self.patch_side**2


PUBLISHED = Geometry(
    dim=384,
    heads=6,
    encoder_layers=6,
    decoder_layers=8,
    queries=224,
    patch_side=8,
    folding_hidden=256,
    stages=PUBLISHED_STAGES,
    neighbours=PUBLISHED_NEIGHBOURS,
)


class PoinTr(nn.Module):
    """Grouper, encoder, queries, decoder and folding."""

    def __init__(self, slots: Slots, geometry: Geometry) -> None:
        super().__init__()
        size, dim, published = geometry, geometry.dim, geometry.published_paths
        self.geometry = geometry
        self.grouper = Grouper(size.stages, size.neighbours)
        self.position = TokenMlp(3, _POSITION_HIDDEN, dim)
        self.input = TokenMlp(size.stages[-1].channels, dim, dim)
        self.encoder = nn.ModuleList(
            EncoderLayer(
                slots.layer(index, of=size.encoder_layers, max_length=size.proxies),
                dim,
                size.heads,
                geometry_aware=published and index == 0,
            )
            for index in range(size.encoder_layers)
        )
        self.queries = (QueryGenerator if published else LearnedQueries)(dim, size.queries)
        self.decoder = nn.ModuleList(
            DecoderLayer(
                slots.layer(
                    index, of=size.decoder_layers, max_length=max(size.queries, size.proxies)
                ),
                dim,
                size.heads,
                geometry_aware=published and index == 0,
            )
            for index in range(size.decoder_layers)
        )
        self.shift = None if published else CentreShift(dim)
        self.features = PooledFeatures(dim) if published else None
        start = 1.0 if published else _PATCH_START
        self.folding = Folding(dim, size.patch_side, size.folding_hidden, start)
        if published:
            start_as_published(self)

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Complete a cloud.

        Args:
            points: (B, N, 3), what was seen.

        Returns:
            (B, M, 3) coarse and (B, M * S, 3) fine points; as published, both with the points that
            were seen (in the coarse cloud a sample of them).
        """
        places, x = self.grouper(points)
        x = self.input(x)
        position = self.position(places)
        published = self.geometry.published_paths
        index = nearest(places, places, NEIGHBOURS) if published else None
        for layer in self.encoder:
            x = layer(x + position, index)
        if self.geometry.memory:
            x = x[:, : self.geometry.memory]
        centres, queries = self.queries(x)
        cross_index = nearest(centres, places, NEIGHBOURS) if published else None
        index = nearest(centres, centres, NEIGHBOURS) if published else None
        for layer in self.decoder:
            queries = layer(queries, x, index, cross_index)
        if self.shift is not None:
            centres = centres + self.shift(queries)
        if self.features is not None:
            queries = self.features(queries, centres)
        fine = (centres[:, :, None] + self.folding(queries)).flatten(1, 2)
        if not published:
            return centres, fine
        seen = take(points, farthest_points(points, self.geometry.queries))
        return torch.cat([centres, seen], dim=1), torch.cat([fine, points], dim=1)


def start_as_published(model: PoinTr) -> None:
    """Small weights in the Transformer and the coarse centres, Glorot's before and after them.

    What a slot holds starts as it likes.
    """
    queries = model.queries
    assert isinstance(queries, QueryGenerator)
    for part in (model.encoder, model.decoder, queries.centres):
        for linear in _linears(part):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
    around = (model.grouper.input, model.position, model.input, queries.widen, queries.query)
    for module in around:
        for linear in _linears(module):
            nn.init.xavier_normal_(linear.weight)


def _linears(module: nn.Module) -> Iterator[nn.Linear]:
    if isinstance(module, nn.Linear):
        yield module
    for child in module.children():
        if not isinstance(child, Attention):
            yield from _linears(child)
