"""The GPU benchmark's measurements: checks, peak memory, and times in turns."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attentions.lla.solvers import kernels_run_on
from benchmarks.lla.gpu_checks import gradient_problem, output_problem
from benchmarks.lla.gpu_entries import (
    ENTRIES,
    PHASES,
    SDPA,
    TRITON,
    Attend,
    Inputs,
    Operation,
    draw,
    prepare,
    sdpa_flops,
)
from benchmarks.lla.gpu_rows import Result
from benchmarks.lla.gpu_tuning import keep_tuning
from benchmarks.lla.iterations import kernel_iterations
from benchmarks.timing import (
    Call,
    Prepare,
    Race,
    clock_of,
    gemm,
    paired,
    planned_rounds,
    spread,
)
from cab.schema import Status
from runners.efficiency.memory import peak_memory
from runners.outcome import describe, status_of

_TUNED = 8192
"""Longest length that the kernels are tuned for; see `keep_tuning`."""
_ROUND_SECONDS = 0.5
"""For the rounds of one entry, between the least and the most rounds."""


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    device: torch.device
    dims: Sequence[int]
    lengths: Sequence[int]
    minutes: float
    """For everything; what is not reached by then is recorded as not tried."""
    longest: float = 2.0
    """Seconds that a call may be expected to take."""
    heads: int = 8
    dtype: torch.dtype = torch.bfloat16
    gemm_size: int = 8192
    rounds: tuple[int, int] = (10, 50)
    """Least and most."""


class Measurement:
    """One run of a plan."""

    def __init__(self, plan: Plan) -> None:
        """Measure the rate that utilisation is relative to."""
        self.plan, self.clock = plan, clock_of(plan.device)
        product, flops = gemm(plan.gemm_size, plan.device, plan.dtype)
        call = product()
        for _ in range(3):
            call()
        self.rate = flops / spread([self.clock(call) for _ in range(10)]).median
        """FLOP/s of a matrix product in the plan's dtype."""
        self._last: dict[tuple[str, str, int], tuple[int, float]] = {}
        """Length and seconds of the last call, by entry, phase and head dim."""
        self._iterations: float | None = None
        self._gradients: dict[tuple[str, int], str | None] = {}
        """What is wrong with the gradients, by entry and head dim."""

    def run(self) -> Iterator[list[Result]]:
        """The results of one length and phase at a time; each head dim has its share of time."""
        plan, end = self.plan, time.monotonic() + 60 * self.plan.minutes
        for number, dim in enumerate(plan.dims):
            now = time.monotonic()
            until = now + (end - now) / (len(plan.dims) - number)
            operations = {e.name: e.build(plan.heads, dim, plan.device) for e in ENTRIES}
            for length in plan.lengths:
                self._iterations = None
                for phase in PHASES:
                    yield self._compare(operations, dim, length, phase, until)
                if length == _TUNED and kernels_run_on(plan.device.type):
                    keep_tuning(_TUNED, plan.lengths)

    def _compare(
        self, operations: dict[str, Operation], dim: int, length: int, phase: str, until: float
    ) -> list[Result]:
        plan, results = self.plan, []
        prepared: dict[str, Prepare] = {}
        for entry in ENTRIES:
            operation = operations[entry.name]
            attend = operation.attend(phase)
            if attend is None:
                continue
            dtype = str(plan.dtype).removeprefix("torch.")
            result = Result(entry, phase, plan.heads, dim, length, dtype)
            results.append(result)
            fresh = _Fresh(plan, attend, result)
            self._leave_out_slow(result, until)
            try:
                if result.status is Status.OK:
                    self._first_calls(result, operation, fresh)
            except Exception as error:
                result.status, result.message = status_of(error), describe(error)
                if result.status is Status.OOM:
                    self._last[_key(result)] = (length, float("inf"))
            if result.status is Status.OK:
                prepared[entry.name] = fresh
        self._time([r for r in results if r.entry.name in prepared], prepared)
        return results

    def _leave_out_slow(self, result: Result, until: float) -> None:
        """Have the result end here where it would take too long, or where memory ran out before."""
        length, seconds = self._last.get(_key(result), (result.length, 0.0))
        seconds *= (result.length / length) ** (1 if result.phase == "decode" else 2)
        if seconds == float("inf"):
            result.status = Status.OOM
            result.message = f"not tried: out of memory at L={length} already"
        elif seconds > self.plan.longest:
            result.status = Status.TIMEOUT
            result.message = f"not tried: about {seconds:.1f} s a call"
        elif time.monotonic() > until:
            result.status = Status.TIMEOUT
            result.message = "not tried: the time for this head dim was spent before it"

    def _first_calls(self, result: Result, operation: Operation, fresh: _Fresh) -> None:
        """What comes before the timed rounds: compilation and tuning, checks, peak memory."""
        inputs = fresh.inputs()
        out = fresh.call_on(inputs)()
        problem = output_problem(operation, inputs, out)
        if result.phase == "forward_backward":
            problem = problem or self._gradient_problem(result, out)
        if problem:
            result.status, result.message = Status.ERROR, f"not timed: {problem}"
            return
        module = operation.module
        if module is not None and result.entry.flops is not None and result.phase != "decode":
            if module.monitor.last is not None:
                result.residual = module.monitor.last.item()
            if self._iterations is None:
                q, k, v = (t.detach().flatten(0, 1) for t in inputs[:3])
                with torch.no_grad():
                    self._iterations = kernel_iterations(q, k, v, module.ridge, module.budget)
            result.iterations = self._iterations
        del inputs, out
        result.peak_bytes = float(peak_memory(fresh(), self.plan.device))
        self._last[_key(result)] = (result.length, self.clock(fresh()))

    def _gradient_problem(self, result: Result, out: Tensor) -> str | None:
        key = (result.entry.name, result.dim)
        if key not in self._gradients:
            self._gradients[key] = gradient_problem(result.entry, result.dim, result.length, out)
        return self._gradients[key]

    def _time(self, results: list[Result], prepared: dict[str, Prepare]) -> None:
        """Time them in turns, and relate the times to each other, to FLOPs and to bytes."""
        if not results:
            return
        expected = {r.entry.name: self._last[_key(r)][1] for r in results}
        least, most = self.plan.rounds
        rounds = planned_rounds(expected, _ROUND_SECONDS, most, least)
        leader = results[0].entry.name
        rounds[leader] = max(rounds.values())
        for fresh in prepared.values():
            # Looking at peak memory has emptied the allocator's cache.
            fresh()()
        seconds = Race(prepared, leader, rounds, self.clock).run()
        for result in results:
            result.seconds = seconds[result.entry.name]
            median = spread(result.seconds).median
            self._last[_key(result)] = (result.length, median)
            if SDPA in seconds:
                result.over_sdpa = paired(result.seconds, seconds[SDPA])
            if TRITON in seconds:
                result.over_triton = paired(result.seconds, seconds[TRITON])
            _relate(result, median, self.rate, self.plan.dtype.itemsize)


class _Fresh:
    """Calls of one entry on fresh inputs."""

    def __init__(self, plan: Plan, attend: Attend, result: Result) -> None:
        self.plan, self.attend, self.result = plan, attend, result

    def inputs(self) -> Inputs:
        """Drawn anew."""
        p, r = self.plan, self.result
        return draw(p.heads, r.length, r.dim, r.phase, p.device, p.dtype)

    def call_on(self, inputs: Inputs) -> Call:
        """One call."""
        return prepare(self.attend, inputs, self.result.phase)

    def __call__(self) -> Call:
        return self.call_on(self.inputs())


def _key(result: Result) -> tuple[str, str, int]:
    return result.entry.name, result.phase, result.dim


def _relate(result: Result, seconds: float, rate: float, itemsize: int) -> None:
    """Set the time beside FLOPs and bytes."""
    numbers = result.heads * result.length * result.dim
    if result.phase == "decode":
        result.bandwidth = 2 * numbers * itemsize / seconds
        return
    flops, iterations = result.entry.flops, result.iterations or 0.0
    if flops is None:
        return
    per_number = flops(result.phase, iterations)
    result.implied_over_sdpa = per_number / sdpa_flops(result.phase, 0.0)
    # A causal mask leaves half of the pairs.
    result.utilisation = per_number * numbers * result.length / 2 / seconds / rate
