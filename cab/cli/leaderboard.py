"""``cab leaderboard``: standings of what the store holds, a table per pattern, scale and device."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape

from cab.cli.console import console
from cab.cli.tables import board, standing_table
from cab.errors import UsageError
from cab.info import Grade, Scale
from cab.patterns import Pattern
from cab.registries import ATTENTIONS
from cab.scoring.quality import QualityBoard, Standing
from cab.scoring.results import Results, load_results
from cab.store import ResultStore


def leaderboard_command(
    patterns: list[str], scale: str | None, device: str | None, grade: str | None, out: Path
) -> None:
    """Print every leaderboard that the store has rows for."""
    if scale is not None and scale not in list(Scale):
        raise UsageError(f"unknown scale {scale!r}; choose from {', '.join(Scale)}")
    if grade is not None and grade not in list(Grade):
        raise UsageError(f"unknown grade {grade!r}; choose from {', '.join(Grade)}")
    if device not in (None, "cpu", "cuda"):
        raise UsageError(f"unknown device {device!r}; choose from cpu, cuda")
    chosen = list(Pattern) if "all" in patterns else [Pattern.parse(p) for p in patterns]
    store = ResultStore(out)
    results = load_results(store)
    tracks = results.rows[["scale", "device"]].drop_duplicates().itertuples(index=False)
    printed = False
    for track_scale, track_device in sorted(tuple(track) for track in tracks):
        if scale not in (None, track_scale) or device not in (None, track_device):
            continue
        for pattern in chosen:
            found = board(results, pattern.value, track_scale, track_device)
            standings = [s for s in found.standings if _kept(s, grade)]
            if not standings:
                continue
            printed = True
            title = f"{pattern.value} ({track_scale}, {track_device})"
            console.print(standing_table(standings, found.tasks, title, console.width))
            print_board_notes(found)
            _print_failures(results, pattern.value, track_scale, track_device)
            console.print()
    if not printed:
        console.print(
            f"no results in {escape(str(out))} for this choice; "
            "measure some: cab run --attn lla --pattern causal-cross"
        )
        return
    console.print(
        "[dim]index: mean over tasks of the signed log-ratio to softmax, paired by seed; "
        "+0.1 is about 10 % better. = marks an entry that its interval does not separate from the "
        "one above.[/dim]"
    )
    if results.superseded:
        console.print(f"[dim]{results.superseded} rows of older code or data left out[/dim]")


def print_board_notes(found: QualityBoard) -> None:
    """What a reader must know beside the standings."""
    for task in found.left_out:
        console.print(
            f"[yellow]{task.task} is left out[/yellow]: softmax beats none by "
            f"{task.ratio:.1f} seed standard deviations only, so it does not measure attention here"
        )
    if found.unjudged:
        console.print(
            f"[dim]not enough seeds of softmax and none to judge: {', '.join(found.unjudged)}[/dim]"
        )
    for standing in found.standings:
        if standing.missing:
            console.print(
                f"[dim]{standing.entry} has no index: no result on "
                f"{', '.join(standing.missing)}[/dim]"
            )


def _print_failures(results: Results, pattern: str, scale: str, device: str) -> None:
    """Cells without a result: they are part of what is known of an entry."""
    rows = results.select(kind="quality", pattern=pattern, scale=scale, device=device)
    failed = rows[rows["status"] != "ok"]
    for (entry, task, status), cells in failed.groupby(["entry", "task", "status"])["cell"]:
        count = cells.nunique()
        console.print(f"[dim]{entry} on {task}: {count} x {status}[/dim]", soft_wrap=True)


def _kept(standing: Standing, grade: str | None) -> bool:
    if grade is None or standing.grade == grade:
        return True
    entry = ATTENTIONS.entries().get(standing.attention)
    return entry is not None and entry.info.kind.value == "control"
