"""Says so when an iterative solve stopped short."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

_LIMIT = 1e-2
"""Relative residual from which the slope of the fit is visibly wrong."""


class ResidualWarning(UserWarning):
    """An iterative solve ran out of iterations; the output is closer to softmax than it should be
    and gradients are off.
    """


class ResidualMonitor:
    """Keeps the residual of a module's last solve and warns, once, where it is too large.

    The forward pass never waits for a GPU: what the GPU has not finished is looked at in a later
    call.
    """

    def __init__(self, hint: str) -> None:
        """Take what to do about it, which ends the warning."""
        self.hint = hint
        self.last: Tensor | None = None
        """Largest relative residual |b - C x| / |b| of the last call, 0-dimensional."""
        self._warned = False
        self._pending: list[tuple[torch.cuda.Event, Tensor, str]] = []

    def watch(self, residual: Tensor, what: str) -> None:
        """Take the residuals of a solve; ``what`` names it ("output", "gradients")."""
        self.last = residual.detach().amax() if residual.numel() else residual.new_zeros(())
        if self._warned:
            return
        if not self.last.is_cuda:
            self._judge(self.last.item(), what)
            return
        if torch.cuda.is_current_stream_capturing():
            return
        self._judge_finished()
        if not self._pending:
            host = torch.empty((), dtype=self.last.dtype, pin_memory=True)
            host.copy_(self.last, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
            self._pending.append((event, host, what))

    def _judge_finished(self) -> None:
        while self._pending and self._pending[0][0].query():
            _, host, what = self._pending.pop(0)
            self._judge(host.item(), what)

    def _judge(self, residual: float, what: str) -> None:
        if residual <= _LIMIT or self._warned:
            return
        self._warned = True
        warnings.warn(
            f"conjugate gradients for the {what} of local linear attention stopped at a relative "
            f"residual of {residual:.1e}; {self.hint}",
            ResidualWarning,
            stacklevel=2,
        )

    def __getstate__(self) -> dict[str, Any]:
        # Modules are copied and pickled; events and pinned memory are not.
        return self.__dict__ | {"_pending": [], "last": None}
