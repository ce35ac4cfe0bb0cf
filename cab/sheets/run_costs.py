"""What a run measured of costs, as sheets: one for each phase, a line per length and entry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cab.controls import DISTURBED
from cab.scoring.efficiency import CostPoint, cost_points
from cab.scoring.results import Results, entry_labels
from cab.sheets.phases import PHASES, SHORT
from cab.sheets.points import points_sheet
from cab.sheets.sheet import Sheet
from cab.sheets.words import count
from cab.track import Track

_METHOD = "median over processes; to softmax: calls timed in turns with it, below 1x is faster"


def run_cost_sheets(results: Results, track: Track, entries: Sequence[str]) -> list[Sheet]:
    """Latency, its ratio to softmax and peak memory by phase and length; nothing where nothing was
    measured.

    Args:
        results: current rows.
        track: to show.
        entries: in their order.
    """
    points = [p for p in cost_points(results, track) if p.entry in entries]
    labels = entry_labels(results.select(track, kind="efficiency"))
    place = {entry: n for n, entry in enumerate(entries)}
    sheets = []
    for phase, words in PHASES.items():
        own = [p for p in points if p.phase == phase]
        if own:
            own.sort(key=lambda p: (p.length, place[p.entry]))
            sheets.append(points_sheet(own, labels, _title(words, own[0], results, track)))
    if sheets:
        notes = dict.fromkeys(note for sheet in sheets for note in sheet.notes)
        sheets = [replace(sheet, notes=()) for sheet in sheets]
        disturbed = disturbed_notes(points)
        sheets[-1] = replace(sheets[-1], notes=(_METHOD, *notes, *disturbed))
    return sheets


def _title(phase: str, first: CostPoint, results: Results, track: Track) -> str:
    machine = results.machine(track)
    return (
        f"Cost, {phase} (batch {first.batch}, {count(first.heads, 'head')} of {first.head_dim}, "
        f"{first.dtype}, {machine.name if machine else track.device})"
    )


def disturbed_notes(points: Sequence[CostPoint]) -> list[str]:
    """Which points were measured while others kept the machine busy, and what to do."""
    found = sorted((p for p in points if p.disturbed), key=lambda p: (p.phase, p.length, p.entry))
    if not found:
        return []
    total = sum(p.disturbed for p in found)
    named = [f"{p.entry} {SHORT.get(p.phase, p.phase)} {p.length:,}" for p in found]
    most = 4
    more = f" and {len(named) - most} others" if len(named) > most else ""
    return [
        f"{DISTURBED} by what else ran here: {count(total, 'measurement')} "
        f"({', '.join(named[:most])}{more}); again: --retry {DISTURBED}"
    ]
