"""What share of the visible pairs a sparse mechanism reads.

A mechanism that reads a part of what its queries may see has a method ``density(q, k, context)``:
the number of pairs (query, column) that `Attention.forward` reads on these inputs over the number
of pairs (query, key) of valid tokens that the pattern lets it see, (B, H). A column is a key, or a
pooled key that stands for several and counts once. Where the choice depends on the inputs, the
method makes it again, so that a call that is timed keeps nothing for it.

`densities` asks it of every mechanism in a model while the model runs on its own data:

    with densities(model) as found:
        model(batch)
    found.mean()  # over all calls; None where no mechanism has a density
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from cab.attention_context import AttentionContext
from cab.attention_contract import Attention


@runtime_checkable
class ReadsShare(Protocol):
    """A mechanism that says what share of the visible pairs it reads."""

    def density(self, q: Tensor, k: Tensor, context: AttentionContext | None = None) -> Tensor:
        """(B, H) of queries (B, H, Lq, D) and keys (B, H, Lk, D): at most 1, and NaN in a row of
        the batch where no pair is visible.
        """
        ...


@dataclass
class Densities:
    """What was found, by the name of a module in the model."""

    calls: dict[str, list[Tensor]] = field(default_factory=dict)
    """(B, H) of each call"""

    def mean(self) -> float | None:
        """Over heads, rows that see something, calls and modules; None where there is none."""
        values = [x.flatten().double().cpu() for calls in self.calls.values() for x in calls]
        known = torch.cat(values) if values else torch.zeros(0)
        known = known[~known.isnan()]
        return known.mean().item() if len(known) else None


@contextmanager
def densities(model: nn.Module) -> Iterator[Densities]:
    """Record the density of every call of a mechanism below ``model``, or of itself.

    Each call costs its choice of keys once more. Outputs are not changed.
    """
    found, handles = Densities(), []

    def watch(name: str) -> Any:
        def hook(module: Any, args: tuple[Any, ...], options: dict[str, Any], _: Any) -> None:
            given = dict(zip(("q", "k", "v", "context"), args, strict=False)) | options
            with torch.no_grad():
                share = module.density(given["q"], given["k"], given.get("context"))
            found.calls.setdefault(name, []).append(share)

        return hook

    for name, module in model.named_modules():
        if isinstance(module, Attention) and isinstance(module, ReadsShare):
            handles.append(module.register_forward_hook(watch(name), with_kwargs=True))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
