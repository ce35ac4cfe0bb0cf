"""Means over contiguous segments of the tokens: the landmarks of Nyström attention and LARA.

n positions are cut into r segments as equal as can be: the first r - n mod r have floor(n / r)
positions, the others one more. With n < r that rule leaves the first r - n segments empty and gives
every token a segment of its own, so that its mean is the token itself.

A masked token keeps its position and has no part in the mean of its segment; n is the position of
the last valid token, so that padding behind it moves no segment. As that differs from row to row of
a batch, with a mask the means are products with an averaging matrix (r, L), and without one they
are means over views of the tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attentions.shared.averaging import segment_averaging


class Segments:
    """The segments of one batch of sequences: their means, and the gradient that these hand back.

    ``filled`` (B, 1, r) is True where a segment has valid tokens, ``empty`` (B, 1, 1) where the row
    has none at all and ``single`` (B, 1, 1) where no segment has more than one; None without a
    mask.
    """

    def __init__(
        self,
        length: int,
        segments: int,
        mask: Tensor | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """``mask`` (B, L) is True where a token is valid; the means are taken in ``dtype``."""
        self.count = min(segments, length)
        self.size, self.longer = divmod(length, self.count)
        self.matrix: Tensor | None = None
        self.filled: Tensor | None = None
        if mask is not None:
            self.matrix, sizes = segment_averaging(mask, segments, dtype or torch.float32)
            self.filled = sizes > 0
            self.empty = ~self.filled.any(-1, keepdim=True)
            self.single = sizes.amax(-1, keepdim=True) <= 1

    def means(self, x: Tensor) -> Tensor:
        """(B, H, r, D) of tokens (B, H, L, D); what masked tokens hold must be finite."""
        if self.matrix is not None:
            return self.matrix @ x
        means = [part.mean(-2) for part in self._parts(x)]
        return means[0] if len(means) == 1 else torch.cat(means, dim=-2)

    def add_gradient_(self, gradient: Tensor, of_means: Tensor) -> Tensor:
        """Add to the gradient of tokens, in place, what they get through their means.

        A pass over memory less than autograd needs, which would write that share out first.
        """
        if self.matrix is not None:
            weights = self.matrix.mT.expand(-1, gradient.shape[1], -1, -1).flatten(0, 1)
            gradient.flatten(0, 1).baddbmm_(weights, of_means.flatten(0, 1))
            return gradient
        start = 0
        for part in self._parts(gradient):
            count, size = part.shape[-3:-1]
            own = of_means[..., start : start + count, None, :]
            part.add_(own, alpha=1.0 / size)
            start += count
        return gradient

    def hide_empty_(self, scores: Tensor) -> Tensor:
        """Set scores (B, H, L, r) of empty segments to -inf, in place.

        A row of the batch that has none but empty ones keeps them, so that a softmax is finite.
        """
        if self.filled is None:
            return scores
        hidden = ~(self.filled | self.empty)
        return scores.masked_fill_(hidden[..., None, :], float("-inf"))

    def may_be_single(self) -> bool:
        """Whether `single` can be true anywhere; not looked up on a GPU, which it would stall."""
        return self.matrix is not None and (self.matrix.is_cuda or bool(self.single.any()))

    def _parts(self, x: Tensor) -> list[Tensor]:
        """Views (..., segments, tokens, D) of the shorter and, if any, of the longer segments."""
        short = self.count - self.longer
        cut = short * self.size
        parts = [x[..., :cut, :].unflatten(-2, (short, self.size))]
        if self.longer:
            parts.append(x[..., cut:, :].unflatten(-2, (self.longer, self.size + 1)))
        return parts
