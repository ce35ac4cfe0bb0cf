"""Digests of tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

_WHOLE = 1 << 14
"""Elements of a tensor that are digested one by one; of larger ones so many, and the sum of all"""


class Digest:
    """A running digest; the order of what it sees counts."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def tensor(self, tensor: Tensor) -> None:
        """Add a tensor: type, shape and content."""
        flat = tensor.detach().reshape(-1)
        self.text(f"{tensor.dtype} {tuple(tensor.shape)}")
        if flat.numel() > _WHOLE:
            total = flat.double().sum() if not flat.is_complex() else flat.abs().double().sum()
            self.text(repr(total.item()))
            flat = flat[:: -(-flat.numel() // _WHOLE)]
        if flat.dtype == torch.bool:
            flat = flat.to(torch.uint8)
        self._hash.update(flat.cpu().contiguous().view(torch.uint8).numpy().tobytes())

    def tensors(self, named: Mapping[str, Tensor]) -> None:
        """Add named tensors, in the order of their names."""
        for name in sorted(named):
            self.text(name)
            self.tensor(named[name])

    def text(self, text: str) -> None:
        """Add words."""
        self._hash.update(text.encode() + b"\0")

    def value(self) -> str:
        """Digest so far, hexadecimal."""
        return self._hash.copy().hexdigest()


def digest_of(tensors: Iterable[Tensor]) -> str:
    """Of some tensors in their order."""
    digest = Digest()
    for tensor in tensors:
        digest.tensor(tensor)
    return digest.value()


def sums_of(tensors: Iterable[Tensor]) -> list[float]:
    """A few sums over tensors, which rounding moves a little: what can be compared where another
    processor rounds otherwise.
    """
    totals = torch.zeros(3, dtype=torch.float64)
    for number, tensor in enumerate(tensors, start=1):
        if tensor.is_floating_point():
            flat = tensor.detach().double().cpu().reshape(-1)
            totals += torch.stack([flat.sum() * number, flat.abs().sum(), flat.square().sum()])
    return totals.tolist()
