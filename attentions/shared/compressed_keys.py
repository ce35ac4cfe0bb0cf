"""Keys that stand for the runs of tokens they were made of, and what they say of whole blocks.

A compressed key c stands for the ``size`` tokens from ``stride`` c on; runs overlap where the
stride is smaller. Only whole runs have one. Blocks of ``block`` tokens, from which queries choose
what to read token by token, take their scores from the compressed keys that overlap them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.shared.masks import valid_lengths


@dataclass(frozen=True)
class Runs:
    """How tokens are compressed, and cut into blocks; the stride divides the size and the block."""

    size: int
    stride: int
    block: int

    def __post_init__(self) -> None:
        if self.size % self.stride or self.block % self.stride:
            raise ValueError(
                f"the stride ({self.stride}) of compressed keys must divide the tokens that they "
                f"stand for ({self.size}) and a block ({self.block})"
            )

    def count(self, length: int) -> int:
        """Compressed keys of so many tokens."""
        return max(0, (length - self.size) // self.stride + 1)

    def blocks(self, length: int) -> int:
        """Blocks of so many tokens; the last may be shorter."""
        return -(-length // self.block)

    def ends(self, length: int, device: torch.device) -> Tensor:
        """(C,) the last token of each run."""
        return torch.arange(self.count(length), device=device) * self.stride + self.size - 1

    def of(self, x: Tensor) -> Tensor:
        """(B, H, C, size, D) the runs of tokens (B, H, L, D); a view."""
        if not self.count(x.shape[2]):
            return x[:, :, :0, None].expand(-1, -1, -1, self.size, -1)
        return x.unfold(2, self.size, self.stride).transpose(-1, -2)

    def valid(self, mask: Tensor | None, length: int, device: torch.device) -> Tensor:
        """(B or 1, C, size) bool, True where a token of a run is valid."""
        if mask is None:
            mask = torch.ones(1, length, dtype=torch.bool, device=device)
        return self.of(mask[:, None, :, None])[:, 0, ..., 0]

    def there(self, mask: Tensor | None, length: int, device: torch.device) -> Tensor:
        """(B or 1, C) bool: runs that have a valid token, and end before the sequence does; that
        is behind its last valid token.
        """
        some = self.valid(mask, length, device).any(-1)
        if mask is None:
            return some
        return some & (self.ends(length, device) < valid_lengths(mask)[:, None])

    def means(self, x: Tensor, valid: Tensor) -> Tensor:
        """(B, H, C, D) mean of the valid tokens of each run; zeros where there is none.

        Args:
            x: (B, H, L, D), zeros where masked.
            valid: from `valid`.
        """
        return self.of(x).sum(3) / valid.sum(-1).clamp(min=1)[:, None, :, None]

    def overlaps(self) -> list[int]:
        """Strides that the compressed keys of `by_block` have in common with the block."""
        run, block = self.size // self.stride, self.block // self.stride
        starts = range(1 - run, block)
        return [min(s + run, block) - max(s, 0) for s in starts]

    def by_block(self, scores: Tensor, blocks: int) -> Tensor:
        """(.., blocks, m) scores (.., C) of the compressed keys that overlap each block; -inf for
        those that are not there.
        """
        run, step, m = self.size // self.stride, self.block // self.stride, len(self.overlaps())
        spare = (blocks - 1) * step + m - (run - 1) - scores.shape[-1]
        padded = F.pad(scores, (run - 1, spare), value=float("-inf"))
        return padded.unfold(-1, m, step)


def filled_blocks(mask: Tensor | None, length: int, block: int, device: torch.device) -> Tensor:
    """(B or 1, blocks) bool, True where a block has a valid token."""
    if mask is None:
        return torch.ones(1, -(-length // block), dtype=torch.bool, device=device)
    return F.pad(mask, (0, -length % block)).unflatten(1, (-1, block)).any(-1)
