"""What the tests of point completion share."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from attentions.softmax_exact import ExactSoftmaxAttention
from cab import Attention, Batch, Pattern, Slots
from tasks.point_completion.grouper import Stage
from tasks.point_completion.pointr import Geometry, PoinTr
from tasks.point_completion.task import PointCompletion

PATTERNS = [Pattern.NONCAUSAL_CROSS, Pattern.NONCAUSAL_SELF]
CANDIDATES = [SoftmaxAttention, ExactSoftmaxAttention, NoAttention]

SMALL_PUBLISHED = Geometry(
    dim=16,
    heads=2,
    encoder_layers=2,
    decoder_layers=2,
    queries=12,
    patch_side=3,
    folding_hidden=8,
    stages=(Stage(8), Stage(16, points=24), Stage(8, points=16)),
    neighbours=5,
)
"""The published paths in little"""


def build(task: PointCompletion, candidate: type[Attention], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return task.build(Slots(task.pattern, candidate, SoftmaxAttention, seed=seed))


def pointr(
    size: Geometry,
    candidate: type[Attention] = SoftmaxAttention,
    pattern: Pattern = Pattern.NONCAUSAL_SELF,
) -> PoinTr:
    torch.manual_seed(0)
    return PoinTr(Slots(pattern, candidate, SoftmaxAttention), size)


def draw(task: PointCompletion, seed: int) -> Batch:
    return task.training_batch(torch.Generator().manual_seed(seed))


def cloud(*size: int, seed: int = 0) -> Tensor:
    return torch.rand(*size, 3, generator=torch.Generator().manual_seed(seed)) - 0.5


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def by_loops(predicted: Tensor, truth: Tensor, threshold: float) -> dict[str, list[float]]:
    """The definitions, point by point."""
    scores: dict[str, list[float]] = {"cd_l1": [], "cd_l2": [], "f_score": []}
    for one, other in zip(predicted.tolist(), truth.tolist(), strict=True):
        there = [min(math.dist(p, q) for q in other) for p in one]
        back = [min(math.dist(q, p) for p in one) for q in other]
        l1 = (sum(there) / len(there) + sum(back) / len(back)) / 2
        l2 = sum(d**2 for d in there) / len(there) + sum(d**2 for d in back) / len(back)
        precision = sum(d < threshold for d in there) / len(there)
        recall = sum(d < threshold for d in back) / len(back)
        both = precision + recall
        scores["cd_l1"].append(1000 * l1)
        scores["cd_l2"].append(1000 * l2)
        scores["f_score"].append(2 * precision * recall / both if both else 0.0)
    return scores
