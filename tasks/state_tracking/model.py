"""How the backbone of state tracking starts: letters as what they move."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tasks.backbones.multihead import start_as_copy
from tasks.backbones.token_transformer import TokenTransformer
from tasks.state_tracking.problem import Case

_CASE_SPREAD = 0.5
"""Standard deviation of what tells one case's letters from another's"""


@torch.no_grad()
def start_from_moves(model: TokenTransformer, cases: Sequence[Case], most_objects: int) -> None:
    """Let embedding and readout start from one random vector for every "position p holds object o".

    A letter g starts as the sum of the vectors of (p, g(p)), which is also the state that it leads
    to from the start, and the readout of (p, o) is its vector. So letters of all cases share what
    they do, and reading a state out need not be learned; following it must be. Attention starts as
    a copy. From unrelated embeddings a short run does not get beyond the second letter.
    """
    width = model.token.embedding_dim
    holds = torch.randn(most_objects, most_objects, width)
    letters = []
    for case in cases:
        alphabet = case.alphabet()
        moved = holds[torch.arange(case.objects), alphabet].sum(1) / case.objects**0.5
        letters.append(moved + _CASE_SPREAD * torch.randn(width))
    model.token.weight.copy_(torch.cat(letters))
    model.readout.weight.copy_(holds.flatten(0, 1) / width**0.5)
    for layer in model.layers:
        start_as_copy(layer.attention, 0.5)  # type: ignore[arg-type]  # of a list of modules
