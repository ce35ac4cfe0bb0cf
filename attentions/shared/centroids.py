"""Centroids of queries and keys that follow them in training, without a gradient.

Online k-means as in vector quantisation: counts and sums of the vectors that are nearest to each
centroid decay with every training pass and take in those of the pass,

    n_c <- g n_c + (1 - g) |A_c|,   m_c <- g m_c + (1 - g) sum of A_c
    mu_c = m_c / n'_c,   n'_c = N (n_c + e) / (N + C e),  N the sum of n_c, e = 1e-5

with A_c the vectors whose product with mu_c is the largest. Counts begin at 1, and sums at random
directions: from 0, the first pass would divide what is random by nearly nothing, and centroids that
took in little would be so long that they take all.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_NORM_EPS, _COUNT_EPS = 1e-6, 1e-5
_GRID = 2.0**-10
"""Of similarities, where vectors are of length sqrt(D)"""


def standardised(x: Tensor) -> Tensor:
    """Layer norm without scale and shift over the last dimension, in float32 at least: vectors of
    length sqrt(D).
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return F.layer_norm(x, x.shape[-1:], eps=_NORM_EPS)


class Centroids(nn.Module):
    """C centroids for each head, buffers in place of parameters."""

    counts: Tensor
    sums: Tensor

    def __init__(self, heads: int, clusters: int, dim: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("counts", torch.ones(heads, clusters))
        self.register_buffer("sums", standardised(torch.randn(heads, clusters, dim)))

    def means(self, dtype: torch.dtype) -> Tensor:
        """(H, C, D)."""
        counts, sums = self.counts.to(dtype), self.sums.to(dtype)
        total = counts.sum(-1, keepdim=True)
        smooth = (counts + _COUNT_EPS) / (total + counts.shape[-1] * _COUNT_EPS) * total
        return sums / smooth[..., None]

    @torch.no_grad()
    def similarities(self, x: Tensor) -> Tensor:
        """(B, H, L, C) products of vectors (B, H, L, D) and centroids, on a grid.

        Standardised vectors of few dimensions are alike up to rounding, by which nothing should be
        chosen: on the grid they are equal, and of equal ones the first comes first.
        """
        return (x @ self.means(x.dtype).mT).div_(_GRID).round_().mul_(_GRID)

    def distance(self, x: Tensor, nearest: Tensor, mask: Tensor | None) -> Tensor:
        """Mean squared distance of valid vectors to their centroids (B, H, L), which are fixed."""
        means = self.means(x.dtype).detach().expand(len(x), -1, -1, -1)
        own = means.gather(2, nearest[..., None].expand(*nearest.shape, x.shape[-1]))
        squares = (x - own).square()
        if mask is None:
            return squares.mean()
        valid = mask[:, None, :, None]
        return (squares * valid).sum() / (valid.sum() * x.shape[1] * x.shape[-1]).clamp(min=1)

    @torch.no_grad()
    def follow(self, x: Tensor, nearest: Tensor, mask: Tensor | None) -> None:
        """Take in vectors (B, H, L, D) that are nearest to centroids (B, H, L)."""
        chosen = F.one_hot(nearest, self.counts.shape[-1]).to(x.dtype)
        if mask is not None:
            chosen = chosen * mask[:, None, :, None]
        counts, sums = chosen.sum((0, 2)), torch.einsum("bhlc,bhld->hcd", chosen, x)
        # Anew and not in place: autograd may hold the old ones.
        self.counts = torch.lerp(counts.to(self.counts.dtype), self.counts, self.momentum)
        self.sums = torch.lerp(sums.to(self.sums.dtype), self.sums, self.momentum)
