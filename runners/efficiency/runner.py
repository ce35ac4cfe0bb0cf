"""The efficiency runner: what the mechanism itself costs, over lengths."""

from __future__ import annotations

import json
import math
import random
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch

import attentions.softmax
import attentions.softmax_exact
from cab import Attention, AttentionSpec, Pattern, seeds
from cab.attention_contract import build_attention
from cab.cell import Cell
from cab.errors import ContractError
from cab.registries import ATTENTIONS
from cab.schema import Row, Status
from runners.efficiency import calls as calls_module
from runners.efficiency import clock as clock_module
from runners.efficiency import judge as judge_module
from runners.efficiency import latency as latency_module
from runners.efficiency.calls import CallFactory
from runners.efficiency.clock import Tampering
from runners.efficiency.conditions import numeric_settings, pin_threads
from runners.efficiency.judge import Judge
from runners.efficiency.latency import measure_latency
from runners.efficiency.memory import attempted_bytes, keep_freed_memory, limit_memory
from runners.efficiency.neighbours import NOISY_CORES, Neighbours
from runners.efficiency.point import Bench, measure_point, number
from runners.efficiency.roofline import measure_roofline
from runners.efficiency.settings import EfficiencySettings, dtype_name, settings_of
from runners.gate import is_own, require_contract
from runners.outcome import DisturbedError, UnsupportedError, describe, status_of
from runners.report import Report
from runners.rows import ended, measured, row_template

METRIC = {"latency": "latency", "memory": "peak_memory", "energy": "energy_per_token"}
"""The number that a row stands for, also where it could not be measured."""

_GATE_LENGTH = 128
_GATE_ROUNDS, _GATE_SECONDS = 3, 0.1
"""Of what is cheap, so that one slow call does not say how long the first point would take"""
_GATED = ("forward", "forward_backward")


def run_efficiency(cell: Cell, report: Report) -> None:
    """Measure one cell; rows are reported length by length.

    A length that runs out of memory ends the series: longer ones are recorded as ``oom`` without
    being tried. So does, as ``timeout``, one that would take too long.

    Raises:
        ContractError: an output differs from the mechanism's reference, a time is impossible, or
            the mechanism breaks the contract or interferes with the measuring.
    """
    settings = settings_of(cell)
    device = torch.device(cell.device)
    keep_freed_memory()
    facts = pin_threads(settings.threads if cell.device == "cpu" else 0)
    # Before the candidate's code is loaded, so that it cannot replace them unseen; a baseline of
    # the user's own may lie in the candidate's file.
    theirs = _baseline_classes(cell, settings, own=True)
    tampering = Tampering(
        clock_module, latency_module, calls_module, judge_module,
        attentions.softmax, attentions.softmax_exact,
        *(sys.modules[cls.__module__] for cls in theirs.values()),
    )  # fmt: skip
    roofline = measure_roofline(device, settings.dtype)
    entry = ATTENTIONS.resolve(cell.target)
    pattern = Pattern.parse(cell.pattern)
    require_contract(cell)
    longest = max(settings.lengths)
    spec = AttentionSpec(
        pattern,
        settings.heads,
        settings.head_dim,
        # Decoding goes on from the longest context for a while.
        max_length=2 * max(longest, settings.source(longest)),
        embed_dim=settings.heads * settings.head_dim,
    )
    candidate_class = ATTENTIONS.load(entry)

    def build() -> Attention:
        torch.manual_seed(seeds.derive(cell.seed, "weights"))
        module = build_attention(candidate_class, spec, cell.options)
        return module.to(device, torch.float32).eval()

    candidate, plain = build(), None
    if settings.compiled:
        plain = build()
        candidate.compile()
    theirs |= _baseline_classes(cell, settings, own=False)
    baselines = {
        name: build_attention(theirs[name], spec).to(device, torch.float32).eval()
        for name in settings.baselines
    }
    order = random.Random(cell.seed)
    generator = torch.Generator(device=device)
    generator.manual_seed(seeds.derive(cell.seed, "efficiency"))
    judge = Judge(candidate, build, order, patience=min(0.4, settings.cell_seconds / 100))
    bench = Bench(
        cell, settings, device, candidate, baselines, judge, tampering, roofline, generator, order,
        plain or candidate,
    )  # fmt: skip
    _gate(bench)

    template = row_template(cell)
    template.batch, template.heads = settings.batch, settings.heads
    template.head_dim = settings.head_dim
    template.dtype = dtype_name(settings.dtype)
    template.threads = torch.get_num_threads()
    template.parameters_attention = sum(p.numel() for p in candidate.parameters())
    beside: dict[str, Any] = {"baseline": settings.baselines[0], "compiled": settings.compiled}
    template.environment = _with(template, facts | beside | numeric_settings(device) | _l2(bench))
    report(done=0.0, rows=list(_of_the_machine(bench, template)))
    # A GPU's driver takes address space as it likes.
    with limit_memory() if cell.device == "cpu" else nullcontext():
        _points(bench, template, report)


def _baseline_classes(
    cell: Cell, settings: EfficiencySettings, own: bool
) -> dict[str, type[Attention]]:
    """Baselines by name, those that come with the suite or the others. The first is the cell's own,
    which may lie anywhere and bear the candidate's id.
    """
    targets = {name: ATTENTIONS.resolve(name).target for name in settings.baselines[1:]}
    targets[settings.baselines[0]] = cell.softmax_target
    return {
        name: ATTENTIONS.class_at(target)
        for name, target in targets.items()
        if is_own(target) == own
    }


def _points(bench: Bench, template: Row, report: Report) -> None:
    """Every length and phase, short lengths first."""
    settings = bench.settings
    only = bench.cell.only
    points = [
        (length, phase)
        for length in settings.lengths
        for phase in settings.phases
        if not only or (phase, length) in only
    ]
    exhausted: dict[str, int] = {}
    began, neighbours = time.monotonic(), Neighbours()
    for done, (length, phase) in enumerate(points, start=1):
        keys = settings.source(length) if bench.candidate.pattern.cross else length
        keys = length if phase == "decode" else keys
        here = measured(template, phase=phase, length_q=length, length_k=keys)
        reached = exhausted.get(phase, exhausted.get("forward"))
        # What is compiled is compiled once, however long a sweep is.
        spent = time.monotonic() - began - bench.compiling
        left = settings.cell_seconds - spent
        share = left / (len(points) - done + 1)
        expected = bench.expected(phase, length)
        if reached is not None:
            message = f"not tried: out of memory at length {reached} already"
            rows = _ends(bench, here, Status.OOM, message)
        elif left <= 0:
            message = f"not tried: the cell's {settings.cell_seconds:.0f} s were spent before it"
            rows = _ends(bench, _judged(here, neighbours.cores()), Status.TIMEOUT, message)
        elif expected > left:
            message = (
                f"not tried: about {expected:.1f} s would be needed, and {left:.1f} s of the "
                f"cell's {settings.cell_seconds:.0f} s are left"
            )
            rows = _ends(bench, _judged(here, neighbours.cores()), Status.TIMEOUT, message)
        else:
            rows = []
            try:
                for row in measure_point(bench, here, phase, length, share):
                    rows.append(row)
            except ContractError:
                raise
            except DisturbedError as error:
                # Its numbers do not count; marked so, the point is measured again.
                noisy = _judged(here, math.inf)
                rows = _ends(bench, noisy, status_of(error), describe(error))
            except Exception as error:
                status, message = status_of(error), describe(error)
                if status is Status.OOM:
                    exhausted[phase] = length
                    size = attempted_bytes(error)
                    tried = "" if size is None else f", an allocation of {size} bytes failed"
                    message = f"out of memory at length {length}{tried} ({message})"
                had = {row.metric for row in rows}
                rows += [e for e in _ends(bench, here, status, message) if e.metric not in had]
        report(done=done / len(points), rows=rows)


def _judged(row: Row, others: float | None) -> Row:
    """The row, marked as disturbed where others kept so many cores busy: the time that a cell has
    was then not the candidate's alone.
    """
    if not (others or 0.0) > NOISY_CORES:
        return row
    return replace(row, environment=_with(row, {"noisy": True}))


def _ends(bench: Bench, here: Row, status: Status, message: str) -> list[Row]:
    """A row for each measure that was asked for."""
    asked = [m for m in ("latency", "memory") if m in bench.cell.measures]
    return [ended(replace(here, metric=METRIC[m]), status, message) for m in asked]


def _gate(bench: Bench) -> None:
    """Before minutes are spent: a timed call of a short length is what the reference says.

    Raises:
        ContractError: it is not.
    """
    settings = replace(bench.settings, seconds=_GATE_SECONDS, rounds=_GATE_ROUNDS)
    for phase in _GATED:
        # Decoding is held to the parallel form, which is.
        if phase != "forward" and phase not in settings.phases:
            continue
        calls = CallFactory(
            settings, _GATE_LENGTH, phase, bench.device, bench.generator, bench.order
        )
        samples = measure_latency(bench.candidate, bench.baselines, calls, settings, bench.order)
        assert samples.witness is not None
        bench.judge.check(samples.witness, patient=True)
        bench.note(calls, samples)
    bench.tampering.require_none()


def _of_the_machine(bench: Bench, template: Row) -> Iterator[Row]:
    """Rates that the calls are set against; they belong to no length."""
    if "latency" in bench.cell.measures:
        roof = bench.roofline
        yield number(template, "gemm_rate", [roof.flops], "FLOP/s", higher_is_better=True)
        yield number(template, "copy_rate", [roof.memory_bandwidth], "B/s", higher_is_better=True)
    if "energy" in bench.cell.measures:
        try:
            bench.start_energy()
        except UnsupportedError as error:
            row = replace(template, metric=METRIC["energy"])
            yield ended(row, Status.UNSUPPORTED, str(error))


def _l2(bench: Bench) -> dict[str, Any]:
    if bench.device.type != "cuda":
        return {}
    return {"l2": "cold" if bench.settings.cold else "hot", "cuda_graphs": bench.settings.graphs}


def _with(row: Row, facts: dict[str, Any]) -> str:
    """The row's environment and more facts."""
    return json.dumps(json.loads(row.environment or "{}") | facts, sort_keys=True)
