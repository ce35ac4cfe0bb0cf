"""The backbones: a mechanism with the pairs as its keys and values, bare or between projections.

Both read a batch of ``queries``, ``keys`` and ``values`` (each (B, length, d)) and predict its
``targets``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cab import AttentionContext, Batch, Pattern, Slots


class Direct(nn.Module):
    """One head without projections: what is measured is the mechanism's own rule of prediction."""

    def __init__(self, slots: Slots, pattern: Pattern, dim: int, max_length: int) -> None:
        super().__init__()
        layer = slots.layer(0, of=1, max_length=max_length)
        self.core = layer(pattern, heads=1, head_dim=dim, embed_dim=dim)

    def forward(self, batch: Batch) -> Tensor:
        """Predictions (B, Lq, d) of the batch's targets."""
        queries, keys, values = batch["queries"], batch["keys"], batch["values"]
        context = AttentionContext(query_input=queries, key_input=keys)
        return self.core(queries[:, None], keys[:, None], values[:, None], context)[:, 0]


class DirectSweep(nn.Module):
    """A `Direct` per dimension; a batch goes to the one of its width."""

    place: Tensor
    """Empty; tells the device of a model that may have no parameter."""

    def __init__(
        self, slots: Slots, pattern: Pattern, dims: Sequence[int], max_length: int
    ) -> None:
        super().__init__()
        self.by_dim = nn.ModuleDict({str(d): Direct(slots, pattern, d, max_length) for d in dims})
        self.register_buffer("place", torch.empty(0), persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """See `Direct.forward`."""
        return self.by_dim[str(batch["queries"].shape[-1])](batch)


class Projected(nn.Module):
    """One layer of several heads with trained projections, without bias, norm or residual.

    It starts as the average of bare mechanisms of different temperature: W_v and W_o are
    identities, W_q = W_k is orthogonal times a factor per head (which breaks the symmetry between
    heads). This start favours mechanisms that compare queries with keys; it is the same for all.
    """

    def __init__(
        self, slots: Slots, pattern: Pattern, dim: int, heads: int, max_length: int
    ) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, heads * dim, bias=False)
        self.key = nn.Linear(dim, heads * dim, bias=False)
        self.value = nn.Linear(dim, heads * dim, bias=False)
        self.output = nn.Linear(heads * dim, dim, bias=False)
        layer = slots.layer(0, of=1, max_length=max_length)
        self.core = layer(pattern, heads=heads, head_dim=dim, embed_dim=dim)
        self._start(dim)

    @torch.no_grad()
    def _start(self, dim: int) -> None:
        for head, weight in enumerate(self.query.weight.split(dim)):
            # Logits times 1/2, 1, 2, ...
            nn.init.orthogonal_(weight).mul_(2 ** ((head - 1) / 2))
        self.key.weight.copy_(self.query.weight)
        self.value.weight.copy_(torch.eye(dim).repeat(self.heads, 1))
        self.output.weight.copy_(torch.eye(dim).repeat(1, self.heads) / self.heads)

    def forward(self, batch: Batch) -> Tensor:
        """Predictions (B, Lq, d) of the batch's targets."""
        queries, keys = batch["queries"], batch["keys"]
        context = AttentionContext(query_input=queries, key_input=keys)
        mixed = self.core(
            self._split(self.query(queries)),
            self._split(self.key(keys)),
            self._split(self.value(batch["values"])),
            context,
        )
        return self.output(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
