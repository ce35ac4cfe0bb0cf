"""Readouts that turn the tokens of a sequence into one set of class logits.

`MeanPooling` is the plain one. `EfficientProbing` (Psomas et al., arXiv 2506.10178) pools by
attention with learned queries: with tokens x in R^(N x C), M queries Q in R^(M x C) and one value
matrix W_v in R^(C x C), cut into M slices of C/M columns,

    a_m = softmax(x q_m / sqrt(C)),   y_m = a_m^T x W_v[:, m],   logits = W norm([y_1 ... y_M]) + b.

The tokens themselves are the keys and no projection follows, so that the head costs M C + C^2
parameters. ``norm`` standardises over the batch without parameters; in eval mode over the running
statistics.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def masked_mean(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over the valid tokens; zeros where there is none.

    Args:
        x: (B, N, C).
        mask: (B, N) bool, True where a token is valid; None: all are.

    Returns:
        (B, C)
    """
    if mask is None:
        return x.mean(1)
    keep = mask[..., None].to(x.dtype)
    return (x * keep).sum(1) / keep.sum(1).clamp_min(1)


class MeanPooling(nn.Module):
    """Mean of the valid tokens, then a linear classifier."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(dim, classes)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, C) tokens and a (B, N) mask to (B, classes) logits."""
        return self.classifier(masked_mean(x, mask))


class EfficientProbing(nn.Module):
    """Attentive pooling with learned queries, then a linear classifier; see the module."""

    def __init__(self, dim: int, classes: int, queries: int = 32) -> None:
        """Build the head.

        Args:
            dim: width C of a token.
            classes: number of classes.
            queries: learned queries M.

        Raises:
            ValueError: the width is not a multiple of the number of queries.
        """
        super().__init__()
        if dim % queries:
            raise ValueError(f"width {dim} is not divisible by {queries} queries")
        self.queries = nn.Parameter(0.02 * torch.randn(queries, dim))
        self.value = nn.Linear(dim, dim, bias=False)
        self.norm = nn.BatchNorm1d(dim, affine=False)
        self.classifier = nn.Linear(dim, classes)

    def pool(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, C) tokens and a (B, N) mask to (B, C) pooled values, query by query.

        A row needs at least one valid token.
        """
        scores = self.queries @ x.transpose(1, 2) * x.shape[-1] ** -0.5
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], -torch.inf)
        values = self.value(x).unflatten(-1, (len(self.queries), -1))
        return torch.einsum("bmn,bnmc->bmc", scores.softmax(-1), values).flatten(1)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, C) tokens and a (B, N) mask to (B, classes) logits."""
        return self.classifier(self.norm(self.pool(x, mask)))
