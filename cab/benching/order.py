"""What is to be timed, in the words of the user, and the plan that it stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING

from cab.benching.kernels import require_kernels
from cab.benching.sizes import parse_dtypes, parse_lengths, parse_numbers
from cab.cli.options import parse_device
from cab.controls import BASELINE, COSTS
from cab.errors import UsageError
from cab.patterns import Pattern
from cab.registries import ALL, ATTENTIONS
from cab.request import Request

if TYPE_CHECKING:
    from runners.efficiency.plan import BenchPlan
    from runners.efficiency.settings import EfficiencySettings

MOST_PROCESSES = 2000
"""Of one command: at a few seconds each, a night"""
_MOST = {"--batch": 1 << 20, "--heads": 1024, "--head-dim": 8192}


@dataclass(frozen=True, kw_only=True)
class BenchOrder:
    """Everything that a sweep is made of. Empty words stand for the device's defaults."""

    attentions: Sequence[str]
    patterns: Sequence[str]
    lengths: str = ""
    source_length: int | None = None
    phases: Sequence[str] = ()
    batch: str = "1"
    heads: str = ""
    head_dim: str = ""
    dtype: str = ""
    device: str = "auto"
    processes: int = 3
    threads: int = 0
    """On a CPU; 0: one per core"""
    seconds: float | None = None
    """That a process may take"""
    hot: bool = False
    graphs: bool = False
    baseline: str = BASELINE
    compiled: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    preset: str = ""

    def check(self) -> None:
        """What can be refused without torch.

        Raises:
            UsageError: a size makes no sense, or there are too many of them.
        """
        parse_lengths(self.lengths or "1")
        counts = {
            flag: len(parse_numbers(flag, text, _MOST[flag])) if text else 1
            for flag, text in (
                ("--batch", self.batch),
                ("--heads", self.heads),
                ("--head-dim", self.head_dim),
            )
        }
        counts["--dtype"] = len(self.dtype.split(","))
        attentions = len(ATTENTIONS.entries()) if ALL in self.attentions else len(self.attentions)
        patterns = len(Pattern) if ALL in self.patterns else len(self.patterns)
        total = attentions * patterns * self.processes * (1 + self.compiled)
        for count in counts.values():
            total *= count
        if total > MOST_PROCESSES:
            several = " x ".join(f"{n} {flag}" for flag, n in counts.items() if n > 1)
            raise UsageError(
                f"{total:,} processes would be measured ({several or 'one shape'} x {attentions} "
                f"attentions x {patterns} patterns x {self.processes} processes), "
                f"{MOST_PROCESSES:,} at most"
            )

    def plan(self) -> Ordered:
        """Look up names and sizes.

        Raises:
            UsageError and its kinds: something of it does not exist, or does not run here.
        """
        from runners.efficiency.plan import bench_plan, phases_of
        from runners.environment import available_cores, device_name

        self.check()
        device = parse_device(self.device)
        if self.graphs and device != "cuda":
            raise UsageError("--cuda-graphs needs a CUDA device")
        threads = self.threads or available_cores()
        if threads > available_cores():
            raise UsageError(
                f"--threads {self.threads}, but {available_cores()} cores may be used here"
            )
        phases = phases_of(self.phases)
        sweep = self._sweep(device, threads, phases)
        request = Request(
            attentions=self.attentions,
            patterns=self.patterns,
            seeds=self.processes,
            device=device,
            measures=COSTS,
            options=self.options,
            preset=self.preset,
        )
        machine = f"{device_name(device)}, {threads} threads"
        plan = bench_plan(request, sweep, machine, self.baseline, self.compiled)
        notes = require_kernels(
            self.baseline, self.attentions, self.compiled, plan.plan.patterns, sweep, device
        )
        return Ordered(plan, sweep, device, notes)

    def _sweep(
        self, device: str, threads: int, phases: tuple[str, ...]
    ) -> list[EfficiencySettings]:
        from runners.efficiency.settings import bench_settings

        usual = bench_settings(device)
        common = replace(
            usual,
            lengths=parse_lengths(self.lengths) if self.lengths else usual.lengths,
            cell_seconds=self.seconds or usual.cell_seconds,
            phases=phases,
            source_length=self.source_length,
            threads=threads,
            cold=not self.hot,
            graphs=self.graphs,
        )
        dtypes = parse_dtypes(self.dtype) if self.dtype else (usual.dtype,)
        batches, heads, widths = (
            parse_numbers(flag, text, _MOST[flag]) if text else (default,)
            for flag, text, default in (
                ("--batch", self.batch, usual.batch),
                ("--heads", self.heads, usual.heads),
                ("--head-dim", self.head_dim, usual.head_dim),
            )
        )
        return [
            replace(common, batch=b, heads=h, head_dim=d, dtype=dtype)
            for b, h, d, dtype in product(batches, heads, widths, dtypes)
        ]


@dataclass(frozen=True)
class Ordered:
    """The plan of an order."""

    bench: BenchPlan
    sweep: Sequence[EfficiencySettings]
    device: str
    notes: Sequence[str]
    """What a reader must know of the kernels"""

    @property
    def patience(self) -> float:
        """Seconds after which a process is given up; a compiler may take minutes."""
        return 3 * self.sweep[0].cell_seconds + 600
