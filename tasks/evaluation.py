"""What tasks share when they ask a model: batches go to it in parts, and answers come back."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from cab import Batch


def device_of(model: nn.Module) -> torch.device:
    """Where a model is: of its first parameter, or buffer where it has none."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def beside(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The batch on the model's device."""
    device = device_of(model)
    return {name: tensor.to(device) for name, tensor in batch.items()}


def answers(model: nn.Module, batch: Batch) -> Tensor:
    """What a model that takes whole batches says of one, float32 on the CPU."""
    said: Tensor = model(beside(model, batch))
    return said.float().cpu()


def parts(batch: Batch, rows: int) -> Iterator[dict[str, Tensor]]:
    """A batch in parts of at most ``rows`` rows, to bound the memory of a forward pass."""
    count = len(next(iter(batch.values())))
    for start in range(0, count, rows):
        yield {name: tensor[start : start + rows] for name, tensor in batch.items()}


def share(hits: Tensor) -> float:
    """Share of True in a bool tensor of any shape."""
    return hits.double().mean().item()
