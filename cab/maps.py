"""The attention map of a mechanism that has one.

A mechanism has a map A where its output is A v with an A that does not depend on v. Then unit
vectors as values show its columns, whatever the mechanism is made of: no cooperation is needed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_ALIKE = 1e-2
"""Largest error, relative to the output, of A v: single precision and lower passes, a mechanism
that is not linear in its values does not"""


@torch.no_grad()
def map_of(attend: Callable[[Tensor], Tensor], v: Tensor) -> Tensor | None:
    """(B, H, Lq, Lk) float32 map, or None where there is none.

    Args:
        attend: the output (B, H, Lq, Dv) for values, all else fixed.
        v: (B, H, Lk, Dv) values. Columns come in groups as wide as they are.
    """
    width, length = v.shape[-1], v.shape[-2]
    out = attend(v).float()
    columns = []
    for start in range(0, length, width):
        units = torch.zeros_like(v)
        for place in range(start, min(start + width, length)):
            units[:, :, place, place - start] = 1.0
        columns.append(attend(units).float())
    found = torch.cat(columns, dim=-1)[..., :length]
    error = (found @ v.float() - out).norm() / out.norm().clamp(min=1e-12)
    return found if error <= _ALIKE else None
