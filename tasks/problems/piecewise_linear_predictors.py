"""Predictors in closed form, which scores are read against; all of them work in float64.

Stream predictors see, for position i, the pairs before i; query predictors see all pairs.

* The oracle is least squares on the pairs of the query's own segment: it is told where segments
  begin. Its error vanishes once a segment has shown d pairs, and no predictor can do better after
  that. Before, it is the minimum-norm solution, whose expected error after t < d pairs is the share
  of the input outside their span.
* Ridge regression on all pairs, W = (sum_j y_j x_j^T) (sum_j x_j x_j^T + ridge I)^-1, is the Mesa
  layer (von Oswald et al. 2023, arXiv 2309.05858) in closed form. It is told nothing, and it cannot
  forget: exact in the first segment, it fits one map to all segments after that.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.problems.piecewise_linear import Problem

MESA_RIDGE = 0.01

_CHUNK = 128
"""Pairs that ridge regression on a stream takes at a time."""


def oracle_stream(problem: Problem) -> Tensor:
    """(B, L, d) predictions of y_i by the pairs before i of the *same* segment.

    In the terms of `_triangular`, the pairs before t send q_s to a_s for s < t and all that is
    orthogonal to these to zero: the prediction is sum_{s<t} R_st a_s.
    """
    _, r, sent = _triangular(problem)
    return (sent @ r.triu(1)).transpose(-1, -2).flatten(1, 2)


def oracle_queries(problem: Problem, inputs: Tensor, chosen: Tensor) -> Tensor:
    """(B, Lq, d) predictions at ``inputs`` by all pairs of their segment.

    Args:
        problem: the source.
        inputs: (B, Lq, d).
        chosen: (B, Lq) segments of the inputs.
    """
    q, _, sent = _triangular(problem)
    fitted = sent @ q.transpose(-1, -2)
    row = torch.arange(len(inputs))[:, None]
    return torch.einsum("bqij,bqj->bqi", fitted[row, chosen], inputs.double())


def _triangular(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """What the pairs of a segment say of its map, in the order in which they say it.

    The inputs of a segment are X^T = Q R with orthonormal columns q_s, and R upper trapezoidal.
    Targets have no noise, so the first min(S, d) pairs determine what is known in the end.

    Returns:
        Q (B, n, d, min(S, d)), R (B, n, min(S, d), S), and where the map sends the q_s,
        a = Y^T R^-1 (B, n, d, min(S, d)), of which a_s takes no more than the pairs up to s.
    """
    x, y = problem.by_segment(problem.x), problem.by_segment(problem.y)
    rank = min(x.shape[-2:])
    q, r = torch.linalg.qr(x.transpose(-1, -2))
    first = y[..., :rank, :].transpose(-1, -2)
    sent = torch.linalg.solve_triangular(r[..., :rank], first, upper=True, left=False)
    return q, r, sent


def ridge_stream(x: Tensor, y: Tensor, ridge: float) -> Tensor:
    """(B, L, d) ridge regression on the pairs before each position.

    Ridge regression is the posterior mean of a Gaussian process with kernel x·x' / ridge and unit
    noise, and the errors of one-step-ahead prediction are its innovations: with K + I = C C^T,
    they are diag(C) C^-1 y. A chunk of pairs starts from the posterior of all chunks before.

    Args:
        x: (B, L, d) inputs. y: (B, L, d') targets.
        ridge: positive.
    """
    x, y = x.double(), y.double()
    dim = x.shape[-1]
    gram = ridge * torch.eye(dim, dtype=x.dtype).expand(len(x), -1, -1)
    moment = x.new_zeros(len(x), y.shape[-1], dim)
    predictions = []
    for inputs, targets in zip(x.split(_CHUNK, 1), y.split(_CHUNK, 1), strict=True):
        solved = torch.linalg.solve(gram, inputs.transpose(-1, -2))
        residuals = targets - (moment @ solved).transpose(-1, -2)
        factor = torch.linalg.cholesky(inputs @ solved + torch.eye(inputs.shape[1]).double())
        innovations = torch.linalg.solve_triangular(factor, residuals, upper=False)
        innovations = factor.diagonal(dim1=-2, dim2=-1)[..., None] * innovations
        predictions.append(targets - innovations)
        gram = gram + inputs.transpose(-1, -2) @ inputs
        moment = moment + targets.transpose(-1, -2) @ inputs
    return torch.cat(predictions, 1)


def ridge_queries(x: Tensor, y: Tensor, inputs: Tensor, ridge: float) -> Tensor:
    """(B, Lq, d') ridge regression on all pairs, at ``inputs`` (B, Lq, d)."""
    x, y = x.double(), y.double()
    gram = x.transpose(-1, -2) @ x
    gram.diagonal(dim1=-2, dim2=-1).add_(ridge)
    return inputs.double() @ torch.linalg.solve(gram, x.transpose(-1, -2) @ y)
