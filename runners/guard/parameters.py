"""Everything that a module can learn with, wherever it keeps it."""

from __future__ import annotations

from collections.abc import Sequence

from cab import Attention
from cab.checks.parameters import unregistered
from runners.outcome import InvalidError


def require_registered(candidates: Sequence[Attention]) -> None:
    """Refuse learnable tensors beside ``parameters()``, which no budget counts and no checkpoint
    keeps: in lists, in buffers, in objects, or handed to the optimiser alone.

    Raises:
        InvalidError: there are some; says how many numbers, and where.
    """
    for module in candidates:
        hidden = unregistered(module)
        if hidden:
            count = sum(tensor.numel() for tensor in hidden)
            shapes = ", ".join(dict.fromkeys(str(tuple(tensor.shape)) for tensor in hidden))
            raise InvalidError(
                f"layer {module.spec.layer_index}: {count} numbers ({shapes}) learn but are not "
                "among the module's parameters(), so nothing counts them and no checkpoint keeps "
                "them; assign an nn.Parameter, or an nn.ParameterList, to an attribute"
            )


def require_count(candidates: Sequence[Attention], counted: int) -> None:
    """Refuse parameters that were made since they were counted for the budget.

    Raises:
        InvalidError: there are more, or fewer.
    """
    now = parameter_count(candidates)
    if now != counted:
        raise InvalidError(
            f"the attention had {counted} parameters when the budget was counted and the optimiser "
            f"was made, and has {now} now"
        )


def parameter_count(candidates: Sequence[Attention]) -> int:
    """Numbers in the registered parameters of all slots."""
    return sum(p.numel() for module in candidates for p in module.parameters())
