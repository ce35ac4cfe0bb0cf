"""Everything that is measured at one length and phase, as rows."""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch

from cab import Attention, AttentionShape
from cab.cell import Cell
from cab.cost_metrics import LATENCY, TRACED_MEMORY, of_baseline, ratio_to
from cab.schema import Row
from runners.efficiency.arithmetic import Reads, arithmetic, reads_of
from runners.efficiency.calls import CallFactory
from runners.efficiency.clock import Tampering
from runners.efficiency.conditions import gpu_state
from runners.efficiency.energy import Counter, energy_counter, idle_watts, measure_energy
from runners.efficiency.graphs import GraphedCalls
from runners.efficiency.judge import Judge
from runners.efficiency.latency import LatencySamples, measure_latency
from runners.efficiency.memory import peak_memory, reserved_memory
from runners.efficiency.neighbours import Neighbours, is_noisy, relative_spread
from runners.efficiency.roofline import Roofline, measure_roofline, require_possible
from runners.efficiency.settings import EfficiencySettings
from runners.efficiency.trace import saved_bytes, state_bytes, traced_peak
from runners.outcome import UnsupportedError
from runners.rows import measured

_CALLS = 6
"""Calls of the candidate that a point makes at the least: first, timed, memory, traced, checked"""
_COUNTED_SECONDS = 0.2
"""Shortest stretch over which the cores that others kept busy are told"""
_TRACE_SECONDS = 4.0
"""Calls that take longer are not traced: the trace takes longer still."""


@dataclass
class Bench:
    """What all points of a cell share."""

    cell: Cell
    settings: EfficiencySettings
    device: torch.device
    candidate: Attention
    baselines: dict[str, Attention]
    judge: Judge
    tampering: Tampering
    roofline: Roofline
    generator: torch.Generator
    order: random.Random
    plain: Attention
    """The candidate as it was written, where it is compiled; else itself"""
    last: dict[tuple[str, str], tuple[int, float]] = field(default_factory=dict)
    """Length and seconds of the last timed call, by contender and phase"""
    reads: Reads | None = None
    traffic: tuple[int, int] = (0, 0)
    """Length of the call that was traced for ``reads``, and the bytes that its operators moved"""
    counter: Counter | None = None
    idle: float = 0.0
    compiling: float = 0.0
    """Seconds by which first calls took longer than later ones: compilation and tuning, mostly"""

    def note(self, calls: CallFactory, samples: LatencySamples) -> None:
        """Remember how long calls of this length took where nothing held them up: it decides what
        is tried at all, and a busy moment must not.
        """
        for name, seconds in samples.samples.items():
            self.last[name, calls.phase] = calls.length, min(seconds) * calls.tokens

    def expected_call(self, name: str, phase: str, length: int) -> float:
        """Seconds that a call may take: the last one's, times the growth of its operations."""
        known = self.last.get((name, phase))
        if known is None:
            return 0.0
        if phase == "decode":
            # A step looks at each key once.
            return known[1] * length / known[0]
        module = self.baselines.get(name, self.candidate)
        return known[1] * self._flops(module, length) / self._flops(module, known[0])

    def _flops(self, module: Attention, length: int) -> float:
        s = self.settings
        keys = s.source(length) if module.pattern.cross else length
        shape = AttentionShape(s.batch, s.heads, length, keys, s.head_dim, module.spec.value_dim)
        try:
            flops = module.flops(shape)
        except NotImplementedError:
            flops = 0.0
        # Without a formula the worst is expected.
        return flops or float(length * keys)

    def expected(self, phase: str, length: int) -> float:
        """Seconds that a point takes at the least."""
        return _CALLS * self.expected_call("candidate", phase, length)

    def start_energy(self) -> None:
        """Find the energy counter and the draw at rest.

        Raises:
            UnsupportedError: there is none.
        """
        self.counter = energy_counter(self.device)
        self.idle = idle_watts(self.counter, self.settings.energy_seconds)


def measure_point(bench: Bench, row: Row, phase: str, length: int, share: float) -> Iterator[Row]:
    """The rows of one length and phase.

    Args:
        bench: the cell.
        row: template of the rows.
        phase: forward, forward_backward or decode.
        length: queries, or in decoding the context.
        share: seconds that this point may take.

    Raises:
        ContractError: the output is wrong, the time impossible, or the measuring was tampered with.
        DisturbedError: the time looks impossible, and others kept the machine busy.
        UnsupportedError: the mechanism cannot do this.
    """
    factory = GraphedCalls if bench.settings.graphs and phase != "decode" else CallFactory
    calls = factory(bench.settings, length, phase, bench.device, bench.generator, bench.order)
    measures = bench.cell.measures
    if "latency" in measures:
        yield from _latency(bench, row, calls, share)
    if "memory" in measures:
        yield from _memory(bench, row, calls)
    if "energy" in measures and bench.counter is not None:
        yield from _energy(bench, row, calls, bench.counter)


def number(
    row: Row, metric: str, samples: list[float], unit: str, *, higher_is_better: bool = False
) -> Row:
    """A row with the median of some samples."""
    return measured(
        row,
        metric=metric,
        value=statistics.median(samples),
        unit=unit,
        samples=samples,
        higher_is_better=higher_is_better,
    )


def _latency(bench: Bench, row: Row, calls: CallFactory, share: float) -> Iterator[Row]:
    settings, candidate, phase = bench.settings, bench.candidate, calls.phase
    playing = {
        name: module
        for name, module in bench.baselines.items()
        if 2 * bench.expected_call(name, phase, calls.length) <= max(share, settings.seconds)
    }
    neighbours = Neighbours()
    before = gpu_state(bench.device)
    samples = measure_latency(
        candidate, playing, calls, settings, bench.order, min(settings.seconds, share / 2)
    )
    # The system counts in hundredths of a second.
    others = neighbours.cores() if samples.wall_seconds > _COUNTED_SECONDS else None
    bench.tampering.require_none()
    assert samples.witness is not None
    verdict = bench.judge.check(samples.witness, decoding=phase == "decode")
    samples.witness = None
    bench.note(calls, samples)
    bench.compiling += samples.compiling

    spreads = {name: relative_spread(s) for name, s in samples.samples.items()}
    facts: dict[str, object] = {
        "checked_against": verdict.how,
        "check_error": verdict.error,
        "other_cores": others,
        "noisy": is_noisy(others, spreads.values()),
    }
    too_slow = {name: "too slow" for name in bench.baselines if name not in playing}
    if samples.sat_out or too_slow:
        facts["baselines_left_out"] = samples.sat_out | too_slow
    if verdict.gradient_error is not None:
        facts["check_gradient_error"] = verdict.gradient_error
    if before:
        facts |= {"gpu_before": before, "gpu_after": gpu_state(bench.device)}
    row = _with_facts(row, facts)
    yield from _times(row, samples)
    yield from _rates(bench, row, calls, samples)


def _times(row: Row, samples: LatencySamples) -> Iterator[Row]:
    yield number(row, "latency", samples.candidate, "s")
    for name in samples.samples:
        if name == "candidate":
            continue
        yield number(row, of_baseline(LATENCY, name), samples.samples[name], "s")
        yield number(row, ratio_to(name), samples.ratios(name), "1")
    if "candidate" in samples.host:
        yield number(row, "step_time", samples.host["candidate"], "s")
    yield number(row, "first_call", [samples.first_call], "s")


def _rates(bench: Bench, row: Row, calls: CallFactory, samples: LatencySamples) -> Iterator[Row]:
    if bench.reads is None:
        shape = CallFactory(
            bench.settings, calls.length, "forward", bench.device, bench.generator, bench.order
        )
        bench.reads, moved = reads_of(bench.plain, shape.prepare(bench.plain).inputs())
        bench.traffic = calls.length, moved
    work = arithmetic(bench.candidate, calls, bench.reads)
    if work is None:
        return
    require_possible(
        min(samples.candidate),
        work,
        bench.roofline,
        lambda: measure_roofline(bench.device, bench.settings.dtype),
        Neighbours().cores,
    )
    seconds = statistics.median(samples.candidate)
    yield number(row, "flops", [work.flops], "FLOP")
    yield number(row, "least_bytes", [work.least_bytes], "B")
    roof = bench.roofline
    for metric, value, unit in (
        ("intensity", work.intensity, "FLOP/B"),
        ("flop_rate", work.flops / seconds, "FLOP/s"),
        ("flop_utilisation", work.flops / seconds / roof.flops, "1"),
        ("bandwidth_utilisation", work.least_bytes / seconds / roof.memory_bandwidth, "1"),
    ):
        yield number(row, metric, [value], unit, higher_is_better=True)


def _memory(bench: Bench, row: Row, calls: CallFactory) -> Iterator[Row]:
    module, cuda = bench.candidate, bench.device.type == "cuda"
    if calls.length == bench.settings.lengths[0]:
        # The first call of a kind allocates what later ones reuse (thread pools, workspaces).
        calls.prepare(module)()
    yield number(row, "peak_memory", [float(peak_memory(calls.prepare(module), bench.device))], "B")
    if cuda:
        yield number(row, "reserved_memory", [float(reserved_memory())], "B")
    # What follows is the same in every process.
    if bench.cell.seed:
        return
    quick = bench.expected_call("candidate", calls.phase, calls.length) <= _TRACE_SECONDS
    if not cuda and quick:
        yield number(row, "traced_memory", [float(traced_peak(calls.prepare(module)))], "B")
        for name, other in bench.baselines.items():
            if bench.expected_call(name, calls.phase, calls.length) > _TRACE_SECONDS / 4:
                continue
            metric = of_baseline(TRACED_MEMORY, name)
            yield from _tried(row, metric, partial(_traced, calls, other))
    if bench.settings.compiled:
        return  # its operators are fused, and hooks on what it saves see other tensors
    if calls.phase == "forward" and quick:
        known, traffic = bench.traffic
        if known != calls.length:
            _, traffic = reads_of(module, calls.prepare(module).inputs())
        yield number(row, "traffic", [float(traffic)], "B")
    if calls.phase == "forward_backward" and quick:
        inputs = calls.prepare(module).inputs()
        yield number(row, "saved_for_backward", [float(saved_bytes(module, inputs))], "B")
    if calls.phase == "decode":
        yield number(row, "state_bytes", [float(state_bytes(calls.prefilled(module)))], "B")
        s = bench.settings
        yield from _tried(
            row, "state_claimed",
            lambda: s.batch * module.state_size(calls.source(module)) * s.dtype.itemsize,
        )  # fmt: skip


def _traced(calls: CallFactory, module: Attention) -> int:
    return traced_peak(calls.prepare(module))


def _tried(row: Row, metric: str, measure: Callable[[], int]) -> Iterator[Row]:
    """A number that may not be had: a baseline that lacks memory, a size that is not declared."""
    try:
        value = measure()
    except (NotImplementedError, UnsupportedError, MemoryError, RuntimeError):
        return
    yield number(row, metric, [float(value)], "B")


def _energy(bench: Bench, row: Row, calls: CallFactory, counter: Counter) -> Iterator[Row]:
    prepared = calls.prepare(bench.candidate)
    # A decoding call may not be repeated: each takes its context some tokens further.
    again = (lambda: calls.prepare(bench.candidate)()) if calls.phase == "decode" else prepared
    used = measure_energy(
        counter, again, torch.cuda.synchronize, bench.idle, bench.settings.energy_seconds
    )
    tokens = bench.settings.batch * (calls.tokens if calls.phase == "decode" else calls.length)
    row = _with_facts(row, {"energy_calls": used.calls, "energy_window_s": used.seconds})
    yield number(row, "energy_per_token", [used.gross / tokens], "J")
    yield number(row, "net_energy_per_token", [used.net / tokens], "J")


def _with_facts(row: Row, facts: dict[str, object]) -> Row:
    environment = json.dumps(json.loads(row.environment or "{}") | facts, sort_keys=True)
    return measured(row, environment=environment)
