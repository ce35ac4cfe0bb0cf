"""Write what docs/scoring.md says of runs at other numbers of steps, from the reference results.

python docs/build_short_runs.py           # write
python docs/build_short_runs.py --check   # exit code 1 where the page is stale

Only what stands between two marks is written; the rest of the page is written by hand.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cab.result_sources import reference_store
from cab.scoring.results import Readable, load_scores
from cab.scoring.short_runs import short_runs
from cab.sheets.files import to_markdown
from cab.sheets.short_runs import short_runs_sheet

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "scoring.md"

FIRST = "<!-- Written by docs/build_short_runs.py from results/reference; do not edit. -->"
LAST = "<!-- The end of what docs/build_short_runs.py writes. -->"

NOTHING = (
    "`results/reference` has no runs at another multiple of the steps yet: nothing is known of it."
)


def main() -> int:
    """Write the page, or compare it with what is there."""
    before = TARGET.read_text(encoding="utf-8")
    text = page(before, reference_store())
    if "--check" in sys.argv[1:]:
        if before == text:
            return 0
        print("docs/scoring.md is stale: run `make docs`", file=sys.stderr)
        return 1
    TARGET.write_text(text, encoding="utf-8")
    return 0


def page(before: str, store: Readable) -> str:
    """The page with what the store's rows say between the marks.

    Raises:
        ValueError: it lacks a mark.
    """
    head, rest = before.split(FIRST)
    _, tail = rest.split(LAST)
    return f"{head}{FIRST}\n\n{block(store)}\n\n{LAST}{tail}"


def block(store: Readable) -> str:
    """A table for every scale and device that has such runs, with its sentences below."""
    results = load_scores(store)
    sheets = [
        short_runs_sheet(short_runs(store, results, setting), setting)
        for setting in results.settings()
    ]
    shown = [sheet for sheet in sheets if sheet is not None]
    return to_markdown(shown).rstrip() if shown else NOTHING


if __name__ == "__main__":
    sys.exit(main())
