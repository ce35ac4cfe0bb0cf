"""Sizes at which the mechanism itself is measured, and how long that may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from cab.cell import Cell
from cab.controls import BASELINE
from cab.info import Scale

CPU_SECONDS = 17.0
"""What a cell may take on a CPU, where a slow mechanism would keep a user waiting for minutes"""


@dataclass(frozen=True)
class EfficiencySettings:
    """Shapes and budgets of one efficiency cell."""

    lengths: tuple[int, ...]
    """Tokens; in cross attention keys are as many as queries, unless ``source_length`` says so."""
    batch: int
    heads: int
    head_dim: int
    dtype: torch.dtype
    seconds: float
    """Time given to the timed calls of one length and phase, baselines included; one timed round is
    made in any case."""
    rounds: int
    """Most timed rounds of one length and phase."""
    cell_seconds: float = 120.0
    """Points that a cell has not begun by then, or that would take it well beyond, are recorded as
    ``timeout`` without being tried."""
    phases: tuple[str, ...] = ("forward", "forward_backward")
    source_length: int | None = None
    """Keys in cross attention; None: as many as queries"""
    baselines: tuple[str, ...] = (BASELINE,)
    """Names of what is timed in turns with the candidate; the first is the cell's own baseline, the
    others are entries"""
    compiled: bool = False
    """Whether the candidate is timed as `torch.compile` makes it; baselines stay as they are"""
    threads: int = 0
    """Threads and cores of the process on a CPU; 0: what it was started with"""
    cold: bool = True
    """GPU: whether calls find an L2 cache with other data in it (decoding always finds its own)"""
    graphs: bool = False
    """GPU: whether calls are replays of a CUDA graph, without launch cost"""
    energy_seconds: float = 2.0
    """Shortest window over which energy is counted"""

    def source(self, length: int) -> int:
        """Keys in cross attention with so many queries."""
        return self.source_length or length

    def to_mapping(self) -> dict[str, Any]:
        """As JSON takes it, for `Cell.settings`."""
        return asdict(self) | {"dtype": dtype_name(self.dtype)}

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> EfficiencySettings:
        """The inverse of `to_mapping`, of what JSON made of it."""
        fields = dict(mapping)
        for name in ("lengths", "phases", "baselines"):
            fields[name] = tuple(fields[name])
        return cls(**fields | {"dtype": getattr(torch, fields["dtype"])})


def dtype_name(dtype: torch.dtype) -> str:
    """``float32``"""
    return str(dtype).removeprefix("torch.")


def efficiency_settings(scale: Scale, device: str) -> EfficiencySettings:
    """On a CPU the head geometry of the small backbones in float32, on a GPU that of common
    language models in bfloat16.
    """
    if device == "cuda":
        lengths = tuple(256 * 2**i for i in range(3 if scale is Scale.TINY else 6))
        return EfficiencySettings(lengths, 1, 8, 64, torch.bfloat16, 1.0, 50)
    if scale is Scale.TINY:
        lengths = (256, 512, 1024)
        return EfficiencySettings(lengths, 1, 4, 16, torch.float32, 0.2, 10, CPU_SECONDS)
    lengths = tuple(256 * 2**i for i in range(6))
    return EfficiencySettings(lengths, 1, 4, 16, torch.float32, 0.4, 30, CPU_SECONDS)


def bench_settings(device: str) -> EfficiencySettings:
    """Of `cab bench` where the user says nothing else: three processes take about half a minute on
    a CPU.
    """
    if device == "cuda":
        lengths = tuple(256 * 2**i for i in range(10))
        return EfficiencySettings(lengths, 1, 8, 64, torch.bfloat16, 1.0, 50)
    lengths = tuple(256 * 2**i for i in range(6))
    return EfficiencySettings(lengths, 1, 4, 32, torch.float32, 0.5, 40, cell_seconds=CPU_SECONDS)


def settings_of(cell: Cell) -> EfficiencySettings:
    """A cell's own settings, or those of its scale."""
    if cell.settings:
        return EfficiencySettings.from_mapping(cell.settings)
    return efficiency_settings(Scale(cell.scale), cell.device)
