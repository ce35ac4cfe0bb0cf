"""Softmax weights of local regression, a tile of queries at a time.

Every path of Local Linear Attention in torch walks over tiles of queries and, for each, forms the
softmax weights of the keys that the tile sees. What is alive at any time is a few matrices of
tile rows by keys, in buffers that all tiles share.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_TILE_WEIGHTS = 1 << 21
"""Weights of a tile: 8 MiB in float32, of which a few lie in a CPU's last-level cache."""
_TILE_MOMENTS = 1 << 20
"""Entries of a tile's second moments, likewise."""
_TILE_ROWS = 128
"""Fewest query rows of a tile, so that its products stay matrix products."""


@dataclass(frozen=True)
class Tile:
    """Sequences [first, last) and query rows [start, stop), which see keys [0, keys)."""

    first: int
    last: int
    start: int
    stop: int
    keys: int

    @property
    def sequences(self) -> slice:
        """Index of the tile's sequences in an (N, ...) tensor."""
        return slice(self.first, self.last)

    @property
    def query_rows(self) -> tuple[slice, slice]:
        """Index of the tile's queries in an (N, Lq, ...) tensor."""
        return self.sequences, slice(self.start, self.stop)

    @property
    def key_rows(self) -> tuple[slice, slice]:
        """Index of the keys that the tile sees in an (N, Lk, ...) tensor."""
        return self.sequences, slice(0, self.keys)


class Tiles:
    """Tiles of one call, their weights, and the buffers that they share."""

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        key_mask: Tensor | None,
        *,
        scale: float,
        causal: bool,
        system: int,
    ) -> None:
        """Plan tiles.

        Args:
            q: (N, Lq, D) queries of the logits. k: (N, Lk, D).
            key_mask: (N, Lk) bool, True where valid, or None.
            scale: factor of q·k in the exponent.
            causal: query i sees keys j <= i + Lk - Lq.
            system: numbers per query row that the solver builds (D^2 for a matrix of its own).
        """
        self.q, self.k = q, k
        self.key_mask = key_mask
        self.scale = scale
        self.causal = causal
        self.system = system
        self.lag = k.shape[1] - q.shape[1]
        self.visible = self._visible_keys()
        self._buffers: dict[str, Tensor] = {}

    def __iter__(self) -> Iterator[Tile]:
        """Tiles that cover all queries of all sequences."""
        n, length_q, length_k = self.q.shape[0], self.q.shape[1], self.k.shape[1]
        rows = max(1, min(length_q, max(_TILE_ROWS, _TILE_WEIGHTS // max(1, length_k))))
        per_sequence = rows * max(length_k, 1)
        group = min(_TILE_WEIGHTS // per_sequence, _TILE_MOMENTS // (rows * self.system))
        group = max(1, min(n, group))
        for first in range(0, n, group):
            last = min(first + group, n)
            for start in range(0, length_q, rows):
                stop = min(start + rows, length_q)
                keys = max(0, stop + self.lag) if self.causal else length_k
                yield Tile(first, last, start, stop, keys)

    def buffer(self, name: str, *shape: int) -> Tensor:
        """Working memory, the same from tile to tile: fresh memory would cost more in page faults
        than the arithmetic that fills it.
        """
        size = math.prod(shape)
        if name not in self._buffers or self._buffers[name].numel() < size:
            self._buffers[name] = self.k.new_empty(size)
        return self._buffers[name][:size].view(shape)

    def product(
        self, name: str, t: Tile, rows: Tensor, keys: Tensor, offset: Tensor | None = None
    ) -> Tensor:
        """(n, rows, keys) scalar products of a tile's rows with its keys, in a buffer.

        Args:
            name: of the buffer.
            t: the tile.
            rows: (n, rows, C). keys: (n, keys, C).
            offset: (n, rows, 1) added to a row's products.
        """
        out = self.buffer(name, t.last - t.first, t.stop - t.start, t.keys)
        if offset is None:
            return torch.bmm(rows, keys.transpose(1, 2), out=out)
        return torch.baddbmm(offset, rows, keys.transpose(1, 2), out=out)

    def weights(self, t: Tile) -> Tensor:
        """(n, rows, keys) softmax weights of a tile; zeros in a row that sees no key."""
        scores = self.product("scores", t, self.q[t.query_rows] * self.scale, self.k[t.key_rows])
        if self.causal:
            # Only the last keys are hidden from any row: those that a row's successors bring.
            query = torch.arange(t.start, t.stop, device=scores.device)[:, None] + self.lag
            common = max(0, min(t.start + self.lag, t.keys))
            key = torch.arange(common, t.keys, device=scores.device)
            scores[..., common:].masked_fill_(key > query, float("-inf"))
        if self.key_mask is not None:
            hidden = ~self.key_mask[t.sequences, None, : t.keys]
            scores.masked_fill_(hidden, float("-inf"))
        weights = torch.softmax(scores, -1, out=self.buffer("weights", *scores.shape))
        if self.key_mask is not None or t.start + self.lag < 0:
            # Softmax is NaN in a row without keys.
            weights.masked_fill_((self.visible[t.query_rows] == 0)[..., None], 0.0)
        return weights

    def without_lone_keys(self, t: Tile, right: Tensor) -> Tensor:
        """Right-hand sides (n, rows, C), zeroed in place in rows that see one key or none.

        One key fits exactly whatever the slope, and solving would only amplify rounding.
        """
        return right.masked_fill_((self.visible[t.query_rows] < 2)[..., None], 0.0)

    def _visible_keys(self) -> Tensor:
        """(N, Lq) how many keys a row sees."""
        n, length_q, length_k = self.q.shape[0], self.q.shape[1], self.k.shape[1]
        count = torch.full((length_q,), length_k, device=self.k.device)
        if self.causal:
            count = (torch.arange(length_q, device=self.k.device) + self.lag + 1).clamp(min=0)
        count = count.expand(n, -1)
        if self.key_mask is None:
            return count
        return F.pad(self.key_mask.cumsum(1), (1, 0)).gather(1, count)
