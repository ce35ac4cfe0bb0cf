"""The efficiency runner: what the mechanism itself costs, over lengths."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch

import attentions.softmax
import attentions.softmax_exact
from cab import Attention, AttentionSpec, Pattern
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
from runners.efficiency.point import Bench, measure_point, number
from runners.efficiency.roofline import measure_roofline
from runners.efficiency.settings import dtype_name, settings_of
from runners.gate import require_contract
from runners.outcome import UnsupportedError, describe, status_of
from runners.report import Report
from runners.rows import ended, measured, row_template

METRIC = {"latency": "latency", "memory": "peak_memory", "energy": "energy_per_token"}
"""The number that a row stands for, also where it could not be measured."""

_GATE_LENGTH = 128


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
    # Before the candidate's code is loaded.
    tampering = Tampering(
        clock_module, latency_module, calls_module, judge_module,
        attentions.softmax, attentions.softmax_exact,
    )  # fmt: skip
    roofline = measure_roofline(device, settings.dtype)
    entry = ATTENTIONS.resolve(cell.target)
    pattern = Pattern.parse(cell.pattern)
    require_contract(entry, pattern, cell.options)
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
        torch.manual_seed(cell.seed)
        module = build_attention(candidate_class, spec, cell.options)
        return module.to(device, torch.float32).eval()

    candidate = build()
    baselines = {}
    for name in settings.baselines:
        baseline = build_attention(ATTENTIONS.load(ATTENTIONS.resolve(name)), spec)
        baselines[name] = baseline.to(device, torch.float32).eval()
    order = random.Random(cell.seed)
    generator = torch.Generator(device=device).manual_seed(cell.seed)
    judge = Judge(candidate, build, order, patience=min(0.4, settings.cell_seconds / 100))
    bench = Bench(
        cell, settings, device, candidate, baselines, judge, tampering, roofline, generator, order
    )
    _gate(bench)

    template = row_template(cell)
    template.batch, template.heads = settings.batch, settings.heads
    template.head_dim = settings.head_dim
    template.dtype = dtype_name(settings.dtype)
    template.threads = torch.get_num_threads()
    template.parameters_attention = sum(p.numel() for p in candidate.parameters())
    template.environment = _with(template, facts | numeric_settings(device) | _l2(bench))
    report(done=0.0, rows=list(_of_the_machine(bench, template)))
    # A GPU's driver takes address space as it likes.
    with limit_memory() if cell.device == "cpu" else nullcontext():
        _points(bench, template, report)


def _points(bench: Bench, template: Row, report: Report) -> None:
    """Every length and phase, short lengths first."""
    settings = bench.settings
    points = [(length, phase) for length in settings.lengths for phase in settings.phases]
    exhausted: dict[str, int] = {}
    began = time.monotonic()
    for done, (length, phase) in enumerate(points, start=1):
        keys = settings.source(length) if bench.candidate.pattern.cross else length
        keys = length if phase == "decode" else keys
        here = measured(template, phase=phase, length_q=length, length_k=keys)
        reached = exhausted.get(phase, exhausted.get("forward"))
        left = settings.cell_seconds - (time.monotonic() - began)
        share = left / (len(points) - done + 1)
        expected = bench.expected(phase, length)
        if reached is not None:
            message = f"not tried: out of memory at length {reached} already"
            rows = _ends(bench, here, Status.OOM, message)
        elif left <= 0:
            message = f"not tried: the cell's {settings.cell_seconds:.0f} s were spent before it"
            rows = _ends(bench, here, Status.TIMEOUT, message)
        elif expected > left:
            message = (
                f"not tried: about {expected:.1f} s would be needed, and {left:.1f} s of the "
                f"cell's {settings.cell_seconds:.0f} s are left"
            )
            rows = _ends(bench, here, Status.TIMEOUT, message)
        else:
            rows = []
            try:
                for row in measure_point(bench, here, phase, length, share):
                    rows.append(row)
            except ContractError:
                raise
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


def _ends(bench: Bench, here: Row, status: Status, message: str) -> list[Row]:
    """A row for each measure that was asked for."""
    asked = [m for m in ("latency", "memory") if m in bench.cell.measures]
    return [ended(replace(here, metric=METRIC[m]), status, message) for m in asked]


def _gate(bench: Bench) -> None:
    """Before minutes are spent: a timed call of a short length is what the reference says.

    Raises:
        ContractError: it is not.
    """
    settings = replace(bench.settings, seconds=0.0, rounds=1)
    for phase in ("forward", "forward_backward"):
        calls = CallFactory(
            settings, _GATE_LENGTH, phase, bench.device, bench.generator, bench.order
        )
        samples = measure_latency(bench.candidate, bench.baselines, calls, settings, bench.order)
        assert samples.witness is not None
        bench.judge.check(samples.witness)
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
