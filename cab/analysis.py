"""What can be said of a trained model beside its scores; it ranks nobody."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Analysis:
    """One number about a trained model."""

    name: str
    unit: str
    higher_is_better: bool


@dataclass(frozen=True)
class Evidence:
    """Where the answers of a batch stand: query ``asked[b, a]`` needs key ``found[b, a]``."""

    asked: Tensor
    """(B, A) places of the queries that ask"""
    found: Tensor
    """(B, A) places of the keys that hold the answers"""
    keys: int
    """Number of keys: slots that see as many are looked at"""
