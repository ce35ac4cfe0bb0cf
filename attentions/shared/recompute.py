"""Parts of a computation whose intermediate results are not kept but computed again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

T = TypeVar("T", Tensor, tuple[Tensor, ...])


def recomputed(function: Callable[..., T], *tensors: Tensor) -> T:
    """The function of the tensors, of which the backward pass keeps the arguments alone.

    For blocks of queries or segments of tokens that are done one after the other: what one of them
    makes on the way is then never in memory beside what the others make. The function draws no
    random numbers.
    """
    if not torch.is_grad_enabled():
        return function(*tensors)
    result: T = checkpoint(
        function, *tensors, use_reentrant=False, preserve_rng_state=False, determinism_check="none"
    )
    return result
