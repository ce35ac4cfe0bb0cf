"""What counting predicts: the frequency of a symbol after each context, from the training split.

About what a model reaches that sees no more than the context. Half a count is added to every symbol
(Krichevsky and Trofimov 1981), so that nothing has probability zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

ADDED = 0.5


def bits_per_symbol(
    train: tuple[Sequence[Tensor], Tensor], test: tuple[Sequence[Tensor], Tensor], symbols: int
) -> float:
    """Mean bits of the test symbols under the conditional frequencies of training.

    Args:
        train: the parts of the context, each an int64 tensor of ids of ``symbols`` + 1 kinds (the
            last is for a place that has no such neighbour), and the symbols that they precede, all
            of one shape. No parts: the frequencies without a context.
        test: likewise.
        symbols: kinds of symbols.
    """
    parts = len(train[0])
    contexts = (symbols + 1) ** parts
    places = _numbered(*train, symbols)
    counts = torch.bincount(places, minlength=contexts * symbols).double() + ADDED
    table = counts.view(contexts, symbols)
    log = (table / table.sum(1, keepdim=True)).log().flatten()
    return -log[_numbered(*test, symbols)].mean().item() / math.log(2)


def _numbered(context: Sequence[Tensor], symbol: Tensor, symbols: int) -> Tensor:
    """(N,) one number for each pair of context and symbol."""
    number = torch.zeros_like(symbol)
    for part in context:
        number = number * (symbols + 1) + part
    return (number * symbols + symbol).flatten()
