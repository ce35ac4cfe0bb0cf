"""The efficiency runner: latency and peak memory of the mechanism itself, over lengths."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator

import torch

from cab import Attention, AttentionSpec, Pattern, Scale
from cab.attention_contract import build_attention
from cab.cell import Cell
from cab.errors import ContractError
from cab.registries import ATTENTIONS
from cab.schema import Row, Status
from runners.efficiency.calls import PHASES, CallFactory
from runners.efficiency.latency import measure_latency
from runners.efficiency.memory import peak_memory
from runners.efficiency.settings import EfficiencySettings, efficiency_settings
from runners.gate import require_contract
from runners.outcome import describe, status_of
from runners.report import Report
from runners.rows import ended, measured, row_template

_METRIC = {"latency": "latency", "memory": "peak_memory"}
"""The number that a row stands for, also where it could not be measured."""

_GATE_LENGTH = 128
_GATE_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""Relative to the largest reference output; a wrong mechanism is off by far more."""


def run_efficiency(cell: Cell, report: Report) -> None:
    """Measure one cell; rows are reported length by length.

    A length that runs out of memory ends the series: longer ones are recorded as ``oom`` without
    being tried.

    Raises:
        ContractError: the mechanism's output differs from its reference, or it breaks the contract.
    """
    pattern = Pattern.parse(cell.pattern)
    entry = ATTENTIONS.resolve(cell.target)
    require_contract(entry, pattern, cell.options)
    settings = efficiency_settings(Scale(cell.scale), cell.device)
    device = torch.device(cell.device)
    torch.manual_seed(cell.seed)
    spec = AttentionSpec(
        pattern,
        settings.heads,
        settings.head_dim,
        max_length=max(settings.lengths),
        embed_dim=settings.heads * settings.head_dim,
    )
    candidate = build_attention(ATTENTIONS.load(entry), spec, cell.options)
    baseline = build_attention(ATTENTIONS.load(ATTENTIONS.resolve("softmax")), spec)
    for module in (candidate, baseline):
        module.to(device, torch.float32).eval()
    _require_correct(candidate, settings, device)

    template = row_template(cell)
    template.batch, template.heads = settings.batch, settings.heads
    template.head_dim = settings.head_dim
    template.dtype = str(settings.dtype).removeprefix("torch.")
    template.parameters_attention = sum(p.numel() for p in candidate.parameters())
    points = [
        (measure, length, phase)
        for measure in cell.measures
        for length in settings.lengths
        for phase in PHASES
    ]
    exhausted: dict[tuple[str, str], int] = {}
    began = time.monotonic()
    generator = torch.Generator(device=device).manual_seed(cell.seed)
    order = random.Random(cell.seed)
    for number, (measure, length, phase) in enumerate(points, start=1):
        here = measured(template, phase=phase, length_q=length, length_k=length)
        here.metric = _METRIC[measure]
        reached = exhausted.get((measure, phase))
        if reached is not None:
            message = f"not tried: out of memory at length {reached} already"
            rows = [ended(here, Status.OOM, message)]
        elif time.monotonic() - began > settings.cell_seconds:
            message = f"not tried: the cell's {settings.cell_seconds:.0f} s were spent before it"
            rows = [ended(here, Status.TIMEOUT, message)]
        else:
            calls = CallFactory(settings, length, phase, device, generator)
            try:
                rows = list(_measure(measure, here, candidate, baseline, calls, settings, order))
            except Exception as error:
                status = status_of(error)
                rows = [ended(here, status, describe(error))]
                if status is Status.OOM:
                    exhausted[measure, phase] = length
        report(done=number / len(points), rows=rows)


def _measure(
    measure: str,
    row: Row,
    candidate: Attention,
    baseline: Attention,
    calls: CallFactory,
    settings: EfficiencySettings,
    order: random.Random,
) -> Iterator[Row]:
    if measure == "memory":
        if calls.length == settings.lengths[0]:
            # The first call of a kind allocates what later ones reuse (thread pools, workspaces).
            calls.prepare(candidate)()
        peak = float(peak_memory(calls.prepare(candidate), calls.device))
        yield _number(row, "peak_memory", [peak], "B")
        return
    samples = measure_latency(candidate, baseline, calls, settings, order)
    yield _number(row, "latency", samples.candidate, "s")
    yield _number(row, "latency_softmax", samples.baseline, "s")
    ratios = [a / b for a, b in zip(samples.candidate, samples.baseline, strict=True)]
    yield _number(row, "latency_ratio", ratios, "1")
    yield _number(row, "first_call", [samples.first_call], "s")


def _number(row: Row, metric: str, samples: list[float], unit: str) -> Row:
    value = statistics.median(samples)
    return measured(
        row, metric=metric, value=value, unit=unit, samples=samples, higher_is_better=False
    )


def _require_correct(
    candidate: Attention, settings: EfficiencySettings, device: torch.device
) -> None:
    """The mechanism that is about to be timed computes what its float64 reference says."""
    if type(candidate).reference is Attention.reference:
        return
    generator = torch.Generator(device=device).manual_seed(0)
    shape = (settings.batch, settings.heads, _GATE_LENGTH, settings.head_dim)
    q, k, v = (torch.randn(*shape, generator=generator, device=device) for _ in range(3))
    q, k, v = (x.to(settings.dtype) for x in (q, k, v))
    with torch.no_grad():
        got = candidate(q, k, v).double()
        want = candidate.double().reference(q.double(), k.double(), v.double())
    candidate.float()
    error = ((got - want).abs().max() / want.abs().max().clamp_min(1e-12)).item()
    if not error <= _GATE_TOLERANCE[settings.dtype]:
        raise ContractError(
            f"output differs from the reference by {error:.1e} of its size; not timed"
        )
