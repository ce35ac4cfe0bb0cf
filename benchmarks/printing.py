"""Tables of measurements, as the suites print them."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from rich.console import Console
from rich.table import Table

from benchmarks.timing import Spread


def plain_table(title: str, *columns: str) -> Table:
    """Left-aligned names in the first column, right-aligned numbers in the others."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=True)
    return table


def median_and_quartiles(values: Spread) -> str:
    """``1.52 [1.4, 1.66]``"""
    return f"{values.median:.3g} [{values.low:.3g}, {values.high:.3g}]"


def print_tables(reporter: pytest.TerminalReporter, tables: Iterable[Table]) -> None:
    """At the end of a session, without colours, so that the output can be kept."""
    console = Console(width=140, no_color=True, highlight=False)
    for table in tables:
        # Rich would fold a title that is longer than its table is wide.
        title, table.title = table.title, None
        with console.capture() as captured:
            console.print(table)
        reporter.write_line(f"\n{title}")
        reporter.write(captured.get())
