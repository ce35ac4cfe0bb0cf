"""Queries and keys of another pass through the same layers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from attentions.shared.query_sources import Place


class SecondPass:
    """What projections make in the second pass stands for what they make in the pass after it."""

    def __init__(self, taking: Sequence[Place]) -> None:
        """Hook into the projections of some slots.

        Args:
            taking: slots that get q and k of a second pass, of a batch of one.
        """
        self.running = False
        self.waiting: set[int] = set()
        """Projections that the second pass has not reached yet"""
        self._every = range(2 * len(taking))
        projections = [module for place in taking for module in (place.query, place.key)]
        for number, projection in enumerate(projections):
            self._redirect(projection, number)

    @contextlib.contextmanager
    def second(self) -> Iterator[None]:
        """What runs within is the second pass."""
        self.running, self.waiting = True, set(self._every)
        try:
            yield
        finally:
            self.running = False

    def reached(self) -> None:
        """Called in the second pass after each projection, which is no longer waited for."""

    def _redirect(self, projection: nn.Module, number: int) -> None:
        made: list[Tensor] = []

        def hook(_: nn.Module, args: tuple[Tensor], out: Tensor) -> Tensor:
            if self.running:
                made[:] = [out]
                self.waiting.discard(number)
                self.reached()
                return out
            if not made or made[0].shape[1:] != out.shape[1:]:
                raise NotImplementedError("the second pass is not of the length of the first")
            return made[0].expand(out.shape)

        # Before what others do with the projection's output, which is to be of this pass.
        projection.register_forward_hook(hook, prepend=True)
