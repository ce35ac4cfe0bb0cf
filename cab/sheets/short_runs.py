"""Whether short runs tell what long ones do, as a sheet whose summary says it in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cab.regularisers import times_words
from cab.scoring.short_runs import ShortRuns
from cab.sheets import columns
from cab.sheets.sheet import Column, Line, Sheet, Value, interval_data
from cab.sheets.words import NOTHING, bounds, count, number, signed
from cab.track import Setting

LEAD = "Do short runs tell?"
SHORT_RUNS_ARE = (
    "Spearman: of the entries' scores at the recipe's own steps with those at a multiple of them; "
    "all: mean over tasks, its interval a bootstrap over tasks and entries"
)
TURNED_IS = (
    "turned over: of the pairs of entries that differ at both lengths beyond what seeds explain "
    "(Holm), those that stand the other way round"
)


def short_runs_sheet(found: Sequence[ShortRuns], setting: Setting) -> Sheet | None:
    """A line for every multiple of the steps, and one for each of its tasks; None where there is no
    multiple.
    """
    if not found:
        return None
    lines, notes = [], [SHORT_RUNS_ARE, TURNED_IS]
    for one in found:
        steps = f"1x, {times_words(one.multiple)}"
        if one.pairs:
            data: dict[str, Value] = {
                "multiple": one.multiple, "pattern": None, "task": None, "entries": one.rho.n,
                **interval_data("rho", one.rho), "decided": one.decided, "turned": one.turned,
            }  # fmt: skip
            shown = (
                steps, "all", "", str(one.rho.n), signed(one.rho.value, 2), bounds(one.rho, 2),
                f"{one.turned} of {one.decided}",
            )  # fmt: skip
            lines.append(Line(shown, data))
        for pair in one.pairs:
            decided, turned = pair.turned()
            data = {
                "multiple": one.multiple, "pattern": pair.pattern, "task": pair.task,
                "entries": len(pair.entries), "rho": number(pair.rho), "decided": decided,
                "turned": turned,
            }  # fmt: skip
            shown = (
                "", pair.pattern, pair.task, str(len(pair.entries)), signed(pair.rho, 2), NOTHING,
                f"{turned} of {decided}",
            )  # fmt: skip
            lines.append(Line(shown, data))
        notes += [
            f"{task} ({pattern}) at {times_words(one.multiple)}: "
            f"{count(entries, 'entry', 'entries')} in common, five are asked for"
            for pattern, task, entries in one.refused
        ]
    headings = (
        Column("steps"), Column("pattern"), columns.TASK, Column("entries", right=True),
        Column("Spearman", right=True), Column(columns.LEVEL, right=True, keep=1),
        Column("turned over", right=True),
    )  # fmt: skip
    title = f"{LEAD} ({setting.title})"
    words = short_runs_words(found)
    return Sheet(title, headings, tuple(lines), {}, tuple(notes), summary=words)


def short_runs_words(found: Sequence[ShortRuns]) -> str:
    """A sentence for every multiple; what turns over comes first."""
    ordered = sorted(found, key=lambda one: (-one.turned, one.multiple))
    return " ".join(_sentence(one) for one in ordered)


def _sentence(one: ShortRuns) -> str:
    steps = times_words(one.multiple)
    if not math.isfinite(one.rho.value):
        return f"At {steps} the steps too few entries were trained to say whether ranks stay."
    between = bounds(one.rho, 2, between="to")
    if one.turned:
        lead = (
            f"RANKS TURN OVER at {steps} the steps: of {count(one.decided, 'pair')} of entries "
            f"that differ at both lengths {one.turned} stand the other way round."
        )
    elif one.decided:
        lead = (
            f"At {steps} the steps no rank turns over: of {count(one.decided, 'pair')} of entries "
            "that differ at both lengths none stands the other way round."
        )
    else:
        lead = f"At {steps} the steps no two entries differ at both lengths beyond their seeds."
    return (
        f"{lead} Spearman's ρ with 1x is {signed(one.rho.value, 2)} (95 % interval {between}; "
        f"{count(one.rho.n, 'entry', 'entries')}, {count(len(one.pairs), 'task')})."
    )
