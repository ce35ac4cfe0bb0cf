"""Windows of several series in blocks, of which some are hidden.

A window of K variables and T hours has K T / h blocks of h hours of one variable. They stand in the
order of their hours, and at the same hours in that of the variables, so block p is of variable
p mod K.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cab import Batch
from tasks.forecasting.data import Series
from tasks.problems.hidden import draw_hidden, hide


def draw(
    series: Series, starts: Tensor, blocks: int, hours: int, hidden: int, generator: torch.Generator
) -> Batch:
    """Hide ``hidden`` blocks of each window that begins at the (B,) ``starts``.

    Args:
        series: of K variables.
        starts: first rows.
        blocks: of a variable in a window.
        hours: of a block.
        hidden: blocks, over all variables.
        generator: draws which.

    Returns:
        what `hide` gives, z-scored blocks (B, ., hours), and ``calendar`` (B, blocks, F) of the
        hour in the middle of each.
    """
    rows = starts[:, None] + torch.arange(blocks * hours)
    wholes = series.values[rows].unflatten(1, (blocks, hours)).transpose(2, 3).flatten(1, 2)
    chosen = draw_hidden(len(starts), wholes.shape[1], hidden, generator)
    return {
        **hide(wholes, chosen),
        "calendar": series.times[rows[:, hours // 2 :: hours]],
    }
