"""``cab report``: one self-contained HTML page of a results folder."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape

from cab.cli.console import console
from cab.cli.leaderboard import check_track
from cab.errors import StoreError, UsageError
from cab.info import Scale
from cab.report.page import page
from cab.scoring.results import load_results
from cab.store import ResultStore


def report_command(to: Path, scale: str | None, device: str | None, out: Path) -> None:
    """Write the page.

    Raises:
        UsageError: nothing in the results folder fits the choice.
        StoreError: the file cannot be written.
    """
    check_track(scale, device)
    if to.is_dir():
        raise UsageError(f"{to} is a folder; --to takes the name of a file")
    results = load_results(ResultStore(out))
    pairs = results.rows[["scale", "device"]].drop_duplicates().itertuples(index=False)
    order = {name.value: place for place, name in enumerate(Scale)}
    tracks = sorted(
        (
            (str(s), str(d))
            for s, d in pairs
            if scale in (None, str(s)) and device in (None, str(d))
        ),
        key=lambda track: (order.get(track[0], len(order)), track[1]),
    )
    if not tracks:
        raise UsageError(
            f"no results in {out} for this choice; measure some: "
            "cab run --attn lla --pattern causal-cross"
        )
    text = page(results, tracks, str(out))
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"cannot write {to}: {error.strerror or error}") from error
    console.print(f"{escape(str(to))}: {len(text) / 1024:.0f} KiB", soft_wrap=True)
