"""Whatever the guard does to a model, training goes on as if it had not looked."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

_TORCHS_OWN = frozenset(vars(nn.Module()))


@contextlib.contextmanager
def undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Within the block the model may be called in any mode; afterwards its parameters, buffers,
    modes, plain attributes (a count of the calls) and torch's random state are what they were.
    """
    kept = [_Kept(module) for module in model.modules()]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            for state in kept:
                state.restore()


class _Kept:
    """One module's own state, without that of its children."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._training = module.training
        self._tables: dict[str, dict[str, torch.Tensor | None]] = {
            "_parameters": dict(module._parameters),
            "_buffers": dict(module._buffers),
        }
        self._tensors = [
            (tensor, tensor.detach().clone())
            for table in self._tables.values()
            for tensor in table.values()
            if tensor is not None
        ]
        self._attributes = {
            name: _copied(value) for name, value in vars(module).items() if name not in _TORCHS_OWN
        }

    @torch.no_grad()
    def restore(self) -> None:
        """Put everything back; what was added goes."""
        own = vars(self._module)
        for name, table in self._tables.items():
            own[name].clear()
            own[name].update(table)
        for tensor, value in self._tensors:
            if not torch.equal(tensor, value):
                tensor.copy_(value)
        for name in [n for n in own if n not in _TORCHS_OWN and n not in self._attributes]:
            del own[name]
        own.update(self._attributes)
        self._module.training = self._training


def _copied(value: Any) -> Any:
    """A copy of plain data, whose content a call may change; anything else is kept as it is."""
    if isinstance(value, torch.Tensor):
        return value if value.requires_grad else value.clone()
    return copy.deepcopy(value) if _plain(value) else value


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_plain(key) and _plain(item) for key, item in value.items())
    if isinstance(value, list | tuple | set):
        return all(_plain(item) for item in value)
    if isinstance(value, torch.Tensor):
        return not value.requires_grad
    return value is None or isinstance(value, bool | int | float | complex | str | bytes)
