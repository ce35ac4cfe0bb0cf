"""Latency of a mechanism, measured in turns with baselines in one process.

Timings drift with clocks and neighbours; a ratio of two calls made moments apart does not. So each
round times all of them, in random order, on fresh inputs. Raw samples are kept and nothing is
discarded. Practice after torch.utils.benchmark (CPU) and triton.testing.do_bench (CUDA events, cold
L2).
"""

from __future__ import annotations

import gc
import random
import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter_ns

from torch import Tensor

from cab import Attention
from runners.efficiency.calls import CallFactory, PreparedCall
from runners.efficiency.clock import Timed, clock_of
from runners.efficiency.inputs import Inputs
from runners.efficiency.settings import EfficiencySettings

CANDIDATE = "candidate"


@dataclass
class Witness:
    """A timed call of the candidate, not known beforehand, that is held to the reference."""

    inputs: Inputs
    out: Tensor
    """What the call returned"""
    snapshot: Tensor
    """What was in it the moment that the clock had stopped"""


@dataclass
class LatencySamples:
    """Seconds per call (in decoding per token), in the order measured."""

    first_call: float
    """The very first call of the length and phase, as the host sees it: compilation, autotuning,
    page faults."""
    samples: dict[str, list[float]]
    """By contender; entry i is from round i, in the first of which all took part"""
    host: dict[str, list[float]]
    """GPU: seconds as the host sees them"""
    witness: Witness | None = None
    """Of the rounds; there after `measure_latency`"""
    calls_seconds: float = 0.0
    """Spent in timed calls"""
    inputs_seconds: float = 0.0
    """Spent in making inputs; in decoding also contexts"""
    wall_seconds: float = 0.0
    """Spent in all"""
    sat_out: dict[str, str] = field(default_factory=dict)
    """Why a baseline was not timed"""
    first_calls: dict[str, float] = field(default_factory=dict)
    """Seconds of the first call of each contender"""

    @property
    def candidate(self) -> list[float]:
        """Of the candidate."""
        return self.samples[CANDIDATE]

    @property
    def compiling(self) -> float:
        """Seconds by which first calls took longer than later ones."""
        return sum(
            max(0.0, took - statistics.median(self.samples[name]))
            for name, took in self.first_calls.items()
        )

    def ratios(self, baseline: str) -> list[float]:
        """Candidate over baseline, of the rounds that had both."""
        others = self.samples.get(baseline, [])
        return [a / b for a, b in zip(self.candidate, others, strict=False)]


def measure_latency(
    candidate: Attention,
    baselines: Mapping[str, Attention],
    calls: CallFactory,
    settings: EfficiencySettings,
    order: random.Random,
    seconds: float | None = None,
) -> LatencySamples:
    """Time candidate and baselines in turns, at least one round each, until the candidate's share
    of the budget is spent.

    A baseline whose turns have taken its share sits out the rounds that are left.

    Args:
        candidate: its errors are the caller's.
        baselines: by name; one that fails (out of memory, say) is left out, and why is told.
        calls: of one length and phase.
        settings: the most rounds, and the budget unless ``seconds`` is given.
        order: decides turns and which call is kept as witness.
        seconds: the budget.

    Raises:
        ContractError: the candidate returns something that is no plain tensor.
    """
    began = perf_counter_ns()
    clock = clock_of(calls.device, settings.cold and calls.phase != "decode")
    budget = settings.seconds if seconds is None else seconds
    kept: list[PreparedCall] = []
    result = LatencySamples(0.0, {CANDIDATE: []}, {})

    def timed(name: str, module: Attention) -> Timed:
        def prepare() -> PreparedCall:
            start = perf_counter_ns()
            call = calls.prepare(module)
            result.inputs_seconds += (perf_counter_ns() - start) * 1e-9
            kept[:] = [call]
            return call

        kept.clear()
        done = clock(prepare)
        result.calls_seconds += done.seconds + (done.host_seconds or 0.0)
        if name in result.samples:
            result.samples[name].append(done.seconds / calls.tokens)
        if done.host_seconds is not None:
            result.host.setdefault(name, []).append(done.host_seconds / calls.tokens)
        return done

    with _no_garbage_collection():
        first = timed("first", candidate)
        result.first_call = first.seconds if first.host_seconds is None else first.host_seconds
        result.first_calls[CANDIDATE] = result.first_call
        del first
        spent = dict.fromkeys((CANDIDATE, *baselines), 0.0)
        for name, module in baselines.items():
            started = perf_counter_ns()
            try:
                timed("first", module)
                result.first_calls[name] = (perf_counter_ns() - started) * 1e-9
            except Exception as error:
                result.sat_out[name] = f"{type(error).__name__}: {error}"
            else:
                result.samples[name] = []
        result.host.pop("first", None)
        modules = {CANDIDATE: candidate} | {
            n: baselines[n] for n in baselines if n in result.samples
        }
        share = budget / len(modules)
        rounds = 0
        while not rounds or (spent[CANDIDATE] < share and rounds < settings.rounds):
            turn = [n for n in modules if not rounds or n == CANDIDATE or spent[n] < share]
            order.shuffle(turn)
            for name in turn:
                done = timed(name, modules[name])
                if name == CANDIDATE and order.random() * (rounds + 1) < 1:
                    # Every round is as likely to be the one that is looked at.
                    snapshot = done.out.clone()
                    result.witness = Witness(kept[-1].inputs(), done.out, snapshot)
                spent[name] += done.seconds
            rounds += 1
    kept.clear()
    result.wall_seconds = (perf_counter_ns() - began) * 1e-9
    return result


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
