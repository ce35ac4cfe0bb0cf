"""``cab report``: one self-contained HTML page of a results folder."""

from __future__ import annotations

from pathlib import Path

from cab.cli.console import console
from cab.cli.options import require_folder
from cab.errors import StoreError, UsageError
from cab.report.album import Album
from cab.report.page import page
from cab.result_sources import ResultSources
from cab.scoring.results import load_results
from cab.scoring.short_runs import short_runs
from cab.sheets.reference import reference_notes
from cab.sheets.words import count
from cab.track import check_setting


def report_command(
    to: Path,
    scale: str | None,
    device: str | None,
    out: Path,
    reference: bool = True,
    figures: Path | None = None,
) -> None:
    """Write the page, and its figures as files where a folder is given for them.

    Raises:
        UsageError: nothing in the results folder fits the choice.
        StoreError: the file cannot be written.
    """
    check_setting(scale, device)
    if to.is_dir():
        raise UsageError(f"{to} is a folder; --to takes the name of a file")
    if figures is not None and figures.exists() and not figures.is_dir():
        raise UsageError(f"{figures} is a file; --figures takes a folder")
    require_folder(out)
    sources = ResultSources.at(out, reference)
    results = load_results(sources)
    settings = results.settings(scale, device)
    if not settings:
        raise UsageError(
            f"no results in {out} for this choice; measure some: "
            "cab run --attn lla --pattern causal-cross"
        )
    notes = reference_notes(sources, results.rows["label"].unique())
    album = Album()
    short = {setting: short_runs(sources, results, setting) for setting in settings}
    text = page(results, settings, _source(sources), notes, album, short)
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"cannot write {to}: {error.strerror or error}") from error
    console.print(f"{to}: {len(text) / 1024:.0f} KiB", soft_wrap=True)
    if figures is not None:
        for figure in album.figures:
            figure.save(figures)
        console.print(
            f"{figures}: {count(len(album.figures), 'figure')} as SVG and PDF", soft_wrap=True
        )


def _source(sources: ResultSources) -> str:
    """Where the rows lie, in words."""
    words = [str(sources.root)] if sources.own.files() else []
    if sources.reference is not None and sources.reference.files():
        words.append("the reference results of cab")
    return " and ".join(words) or str(sources.root)
