"""The density of what was timed: asked of sparse mechanisms when all timing is over.

It stands beside `runners.efficiency.runner`, which the keys of costs cover, so that a number that
only describes the calls throws no measurement away.
"""

from __future__ import annotations

import random
from dataclasses import replace

import torch

from cab import Attention, AttentionSpec, Pattern, seeds
from cab.attention_contract import build_attention
from cab.cell import Cell, Point
from cab.cost_metrics import DENSITY, LATENCY, PEAK_MEMORY
from cab.density import ReadsShare
from cab.registries import ATTENTIONS
from cab.schema import Row, Status
from runners.efficiency.calls import CallFactory
from runners.efficiency.runner import run_efficiency
from runners.efficiency.settings import EfficiencySettings, settings_of
from runners.report import Report
from runners.rows import measured

_PHASES = ("forward", "forward_backward")
"""Those whose calls choose what they read of all keys at once"""


def run_with_density(cell: Cell, report: Report) -> None:
    """`run_efficiency`, and for every length that it has a number of, the share of the visible
    pairs that the mechanism reads of inputs as they were timed (`cab.density`).

    Raises:
        ContractError: as `run_efficiency`.
    """
    points: dict[Point, Row] = {}

    def noting(*, rows: list[Row] | None = None, **progress: object) -> None:
        for row in rows or ():
            timed = row.status == Status.OK.value and row.metric in (LATENCY, PEAK_MEMORY)
            if timed and row.phase in _PHASES and row.length_q is not None:
                points.setdefault((row.phase, row.length_q), row)
        report(rows=rows, **progress)  # type: ignore[arg-type]

    run_efficiency(cell, noting)
    rows = density_rows(cell, points)
    if rows:
        report(done=1.0, rows=rows)


@torch.no_grad()
def density_rows(cell: Cell, points: dict[Point, Row]) -> list[Row]:
    """A row for each point, whose own row says how it was measured; none for a mechanism that does
    not say what it reads.

    Both phases of a length have the same forward pass, and one number.
    """
    settings = settings_of(cell)
    module = _built(cell, settings)
    if not isinstance(module, ReadsShare):
        return []
    device = torch.device(cell.device)
    generator = torch.Generator(device=device)
    generator.manual_seed(seeds.derive(cell.seed, "efficiency"))
    order = random.Random(cell.seed)
    by_length: dict[int, float] = {}
    for length in sorted({length for _, length in points}):
        calls = CallFactory(settings, length, "forward", device, generator, order)
        drawn = calls.prepare(module).inputs()
        share = module.density(drawn.q, drawn.k, drawn.context)
        by_length[length] = share.double().nanmean().item()
    rows = []
    for (_, length), row in points.items():
        value = by_length[length]
        plain = replace(row, samples=[value], higher_is_better=False, unit="1")
        rows.append(measured(plain, metric=DENSITY, value=value))
    return rows


def _built(cell: Cell, settings: EfficiencySettings) -> Attention:
    """The candidate as it was timed, uncompiled."""
    longest = max(settings.lengths)
    spec = AttentionSpec(
        Pattern.parse(cell.pattern),
        settings.heads,
        settings.head_dim,
        max_length=2 * max(longest, settings.source(longest)),
        embed_dim=settings.heads * settings.head_dim,
    )
    torch.manual_seed(seeds.derive(cell.seed, "weights"))
    module = build_attention(ATTENTIONS.class_at(cell.target), spec, cell.options)
    return module.to(torch.device(cell.device), torch.float32).eval()
