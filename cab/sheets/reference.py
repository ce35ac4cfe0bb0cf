"""What a reader must know of the reference results: that they are shown, and whence they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from cab.label import Label
from cab.result_sources import ResultSources
from cab.scoring.origin import commits_words, short_commit
from cab.scoring.versions import machine_name
from cab.sheets.sheet import Sheet


def with_reference_notes(sheets: Sequence[Sheet], sources: ResultSources) -> list[Sheet]:
    """The sheets, with the notes below the last one if any has a reference result."""
    labels = {str(line.data.get("label")) for sheet in sheets for line in sheet.lines}
    notes = reference_notes(sources, labels)
    if not sheets or not notes:
        return list(sheets)
    return [*sheets[:-1], replace(sheets[-1], notes=(*sheets[-1].notes, *notes))]


def reference_notes(sources: ResultSources, labels: Iterable[str]) -> list[str]:
    """On which machine and commit the reference results were measured, if some are shown.

    Args:
        sources: what was read.
        labels: of what is shown.
    """
    store = sources.reference
    if store is None or not any(Label.REFERENCE.value in words for words in labels):
        return []
    columns = ["device_name", "threads", "git_commit", "recorded_at"]
    rows = store.read(columns).to_pandas()
    machines = {
        machine_name(name, threads)
        for name, threads in rows[["device_name", "threads"]].dropna().drop_duplicates().to_numpy()
    }
    newest = rows.sort_values("recorded_at", ascending=False)
    commits = [short_commit(str(commit)) for commit in newest["git_commit"].dropna().unique()]
    first, last = newest["recorded_at"].min(), newest["recorded_at"].max()
    words = [f"measured by the project on {' and '.join(sorted(machines)) or 'a machine unnamed'}"]
    if commits:
        words.append(commits_words(commits))
    if len(rows):
        days = sorted({f"{first:%Y-%m-%d}", f"{last:%Y-%m-%d}"})
        words.append(" to ".join(days))
    return [f"reference: {', '.join(words)}; --no-reference leaves them out"]


def only_reference(sources: ResultSources) -> str | None:
    """A line for a reader who has measured nothing yet, None for others."""
    if sources.reference is None or sources.own.files() or not sources.reference.files():
        return None
    return (
        f"nothing measured in {sources.root} yet: these are the reference results that come with "
        "cab. Yours stand beside them after: cab run --attn lla --pattern causal-cross"
    )
