"""What the tests of tasks with hidden parts share."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from attentions.softmax import SoftmaxAttention
from cab import Attention, Batch, Pattern, Slots, Task
from runners.training import train

NC = Pattern.NONCAUSAL_CROSS


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model_of(task: Task, attention: type[Attention] = SoftmaxAttention) -> nn.Module:
    torch.manual_seed(0)
    return task.build(Slots(NC, attention, SoftmaxAttention)).eval()


def trained_score(task: Task, attention: type[Attention]) -> float:
    """The first metric of a whole cell on test data."""
    torch.manual_seed(0)
    slots = Slots(NC, attention, SoftmaxAttention)
    model = task.build(slots)
    train(task, model, slots.candidates, 0, lambda **_: None)
    with torch.no_grad():
        return task.evaluate(model.eval(), "test", 0)[task.info.metrics[0].name]


def without(batch: Batch, *names: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in batch.items() if name not in names}


def same(one: Mapping[str, torch.Tensor], two: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def shuffled_known(batch: Batch, *names: str) -> dict[str, torch.Tensor]:
    """The batch with its known tokens in another order, the same in all tensors of ``names``."""
    order = torch.randperm(batch[names[0]].shape[1], generator=generator(1))
    return {**batch, **{name: batch[name][:, order] for name in names}}
