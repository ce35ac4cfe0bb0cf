"""What the tests of super-resolution share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from attentions.softmax_exact import ExactSoftmaxAttention
from cab import Attention, Batch, Pattern, Slots, Task
from tasks.super_resolution.sr3_task import SuperResolutionSR3
from tasks.super_resolution.task import SuperResolution

NS = Pattern.NONCAUSAL_SELF
CLASSES = [SuperResolution, SuperResolutionSR3]
CANDIDATES = [SoftmaxAttention, ExactSoftmaxAttention, NoAttention]


def build(task: Task, candidate: type[Attention], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return task.build(Slots(NS, candidate, SoftmaxAttention, seed=seed))


def draw(task: Task, seed: int) -> Batch:
    return task.training_batch(torch.Generator().manual_seed(seed))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def noise_pictures(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
