"""A causal decoder over fixations with a pointer to objects, after OAT (Fang et al. 2024).

An object's token is a tag, which only says *which* object of the scene it is, + a linear map of its
place, colour, shape and size. The decoder's token is the tag of the object looked at last + the
description of the target + the step. So where the gaze rests, and whether what it rests on is the
target, must be fetched from the objects through cross attention; the pointer can compare objects
with the description and with earlier tags without it, but not with a gaze that it does not know.

OAT encodes the objects by self attention first. That is left out: an encoder could put the
neighbours' tags into each object, and the pointer would need no cross attention.

Per layer: causal self attention over the fixations (softmax), cross attention to the objects, the
candidate's slot, and a feed-forward. Logits are (W_e o_j) · (W_d x_t) / sqrt(E) for object j and 0
for the stop, which is impossible at the first step. For every mechanism alike, cross attention
starts as likeness, which tags make that of the object looked at, and hands values through.

Shapes: B scenes, N objects, T steps, E width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cab import Batch, Pattern, Slots
from tasks.backbones.multihead import start_as_copy, start_as_similarity
from tasks.backbones.transformer import CrossAttentionLayer
from tasks.scanpath.scenes import COLOURS, SHAPES

FEATURES = 3 + COLOURS + SHAPES + 1
"""Of an object: x, y and their squared radius about the centre; its kind; its size"""


class FixationDecoder(nn.Module):
    """Logits of the next fixation."""

    def __init__(
        self,
        slots: Slots,
        *,
        objects: int,
        length: int,
        dim: int,
        heads: int,
        layers: int,
        expansion: int,
    ) -> None:
        super().__init__()
        self.tag = nn.Parameter(torch.randn(objects, dim))
        self.begin = nn.Parameter(torch.randn(dim))
        self.features = nn.Linear(FEATURES, dim)
        self.description = nn.Linear(COLOURS + SHAPES, dim)
        self.step = nn.Parameter(0.3 * torch.randn(length, dim))
        self.layers = nn.ModuleList(
            CrossAttentionLayer(
                slots.layer(index, of=layers, max_length=max(objects, length)),
                Pattern.CAUSAL_SELF,
                Pattern.CAUSAL_CROSS,
                dim,
                heads,
                expansion=expansion,
            )
            for index in range(layers)
        )
        for layer in self.layers:
            assert isinstance(layer, CrossAttentionLayer)
            start_as_similarity(layer.cross_attention)
            start_as_copy(layer.cross_attention)
        self.source_norm = nn.LayerNorm(dim)
        self.norm = nn.LayerNorm(dim)
        self.point_at = nn.Linear(dim, dim)
        self.point_from = nn.Linear(dim, dim)

    def forward(self, batch: Batch) -> Tensor:
        """(B, T, N + 1) logits from a batch of `task.scanpath_batch`.

        Of ``paths`` (B, T) the entries before step t are read for step t; the stop is last.
        """
        present, paths = batch["present"], batch["paths"]
        source = self.source_norm(self.tag + self.features(batch["features"]))
        before = torch.cat(
            [self.begin.expand(len(paths), 1, -1), self.tag[paths[:, :-1].clamp(min=0)]], dim=1
        )
        x = before + self.description(batch["sought"])[:, None] + self.step[: paths.shape[1]]
        for layer in self.layers:
            x = layer(x, source, source_mask=present)
        pointer = self.point_from(self.norm(x)) / x.shape[-1] ** 0.5
        logits = pointer @ self.point_at(source).transpose(1, 2)
        logits = logits.masked_fill(~present[:, None], -torch.inf)
        stop = torch.zeros_like(logits[..., :1])
        stop[:, 0] = -torch.inf
        return torch.cat([logits, stop], dim=-1)
