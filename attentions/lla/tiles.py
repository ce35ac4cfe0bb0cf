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

_BLOCK_ROWS = 256
"""Query rows of a block: enough for its products to run at the speed of large ones, and few enough
that a causal block computes little above the diagonal."""
_TILE_WEIGHTS = 1 << 22
"""Weights of a tile: blocks are taken together up to this many, 16 MiB in float32."""
_TILE_SYSTEMS = 1 << 20
"""Numbers in a tile's systems, 4 MiB, likewise."""


@dataclass(frozen=True)
class Block:
    """Sequences [first, last) and query rows [start, stop), which see keys [0, keys)."""

    first: int
    last: int
    start: int
    stop: int
    keys: int

    @property
    def sequences(self) -> slice:
        """Index of the block's sequences in an (N, ...) tensor."""
        return slice(self.first, self.last)

    @property
    def query_rows(self) -> tuple[slice, slice]:
        """Index of the block's queries in an (N, Lq, ...) tensor."""
        return self.sequences, slice(self.start, self.stop)

    @property
    def key_rows(self) -> tuple[slice, slice]:
        """Index of the keys that the block sees in an (N, Lk, ...) tensor."""
        return self.sequences, slice(0, self.keys)


@dataclass(frozen=True)
class Tile:
    """Blocks of successive rows of the same sequences, whose systems are solved together."""

    blocks: tuple[Block, ...]

    @property
    def sequences(self) -> slice:
        """Index of the tile's sequences in an (N, ...) tensor."""
        return self.blocks[0].sequences

    @property
    def query_rows(self) -> tuple[slice, slice]:
        """Index of the tile's queries in an (N, Lq, ...) tensor."""
        return self.sequences, slice(self.blocks[0].start, self.blocks[-1].stop)

    def parts(self) -> Iterator[tuple[Block, tuple[slice, slice]]]:
        """Every block with the index of its rows in an (n, rows, ...) tensor of the tile."""
        for block in self.blocks:
            start = self.blocks[0].start
            yield block, (slice(None), slice(block.start - start, block.stop - start))


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
        self.scaled = q * scale
        """(N, Lq, D) queries times the factor of the logits."""
        self.key_mask = key_mask
        self.scale = scale
        self.causal = causal
        self.system = system
        self.lag = k.shape[1] - q.shape[1]
        visible = self._visible_keys()
        self._empty, self._lone = visible == 0, visible < 2
        rows = min(q.shape[1], _BLOCK_ROWS)
        self._diagonal = k.new_full((rows, rows), float("-inf")).triu(1)
        self._buffers: dict[str, Tensor] = {}

    def __iter__(self) -> Iterator[Tile]:
        """Tiles that cover all queries of all sequences."""
        n, length_q, length_k = self.q.shape[0], self.q.shape[1], self.k.shape[1]
        rows = max(1, min(length_q, _BLOCK_ROWS))
        blocks = min(_TILE_WEIGHTS // max(1, length_k), _TILE_SYSTEMS // self.system) // rows
        height = rows * max(1, min(blocks, -(-length_q // rows)))
        group = min(_TILE_WEIGHTS // max(1, length_k), _TILE_SYSTEMS // self.system) // height
        group = max(1, min(group, n))
        for first in range(0, n, group):
            last = min(first + group, n)
            for top in range(0, length_q, height):
                bottom = min(top + height, length_q)
                starts = range(top, bottom, rows)
                yield Tile(
                    tuple(
                        self._block(first, last, start, min(start + rows, bottom))
                        for start in starts
                    )
                )

    def _block(self, first: int, last: int, start: int, stop: int) -> Block:
        keys = max(0, stop + self.lag) if self.causal else self.k.shape[1]
        return Block(first, last, start, stop, keys)

    def buffer(self, name: str, *shape: int) -> Tensor:
        """Working memory, the same from tile to tile: fresh memory would cost more in page faults
        than the arithmetic that fills it.
        """
        size = math.prod(shape)
        if name not in self._buffers or self._buffers[name].numel() < size:
            self._buffers[name] = self.k.new_empty(size)
        return self._buffers[name][:size].view(shape)

    def buffers(self, name: str, t: Tile) -> list[Tensor]:
        """(n, rows, keys) of working memory for every block of a tile, one behind the other."""
        shapes = [(b.last - b.first, b.stop - b.start, b.keys) for b in t.blocks]
        sizes = [math.prod(shape) for shape in shapes]
        pieces = self.buffer(name, sum(sizes)).split(sizes)
        return [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]

    def product(
        self, name: str, b: Block, rows: Tensor, keys: Tensor, offset: Tensor | None = None
    ) -> Tensor:
        """(n, rows, keys) scalar products of a block's rows with its keys, in a buffer.

        Args:
            name: of the buffer.
            b: the block.
            rows: (n, rows, C). keys: (n, keys, C).
            offset: (n, rows, 1) added to a row's products.
        """
        out = self.buffer(name, b.last - b.first, b.stop - b.start, b.keys)
        if offset is None:
            return torch.bmm(rows, keys.transpose(1, 2), out=out)
        return torch.baddbmm(offset, rows, keys.transpose(1, 2), out=out)

    def weights(self, t: Tile) -> list[Tensor]:
        """(n, rows, keys) softmax weights of every block; zeros in a row that sees no key."""
        weights = self.buffers("weights", t)
        for b, out in zip(t.blocks, weights, strict=True):
            scores = self.product("block", b, self.scaled[b.query_rows], self.k[b.key_rows])
            if self.causal:
                # Only the last keys are hidden from any row: those that a row's successors bring.
                rows = b.stop - b.start
                tail = min(rows, b.keys)
                scores[..., b.keys - tail :] += self._diagonal[:rows, rows - tail : rows]
            if self.key_mask is not None:
                padding = ~self.key_mask[b.sequences, None, : b.keys]
                scores.masked_fill_(padding, float("-inf"))
            torch.softmax(scores, -1, out=out)
            if self.key_mask is not None or b.start + self.lag < 0:
                # Softmax is NaN in a row without keys.
                out.masked_fill_(self._empty[b.query_rows][..., None], 0.0)
        return weights

    def without_lone_keys(self, t: Tile, right: Tensor) -> Tensor:
        """Right-hand sides (n, rows, C), zeroed in place in rows that see one key or none.

        One key fits exactly whatever the slope, and solving would only amplify rounding.
        """
        return right.masked_fill_(self._lone[t.query_rows][..., None], 0.0)

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
