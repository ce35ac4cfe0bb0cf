"""What the reference results say of an entry: scores beside softmax and no attention."""

from __future__ import annotations

import pandas as pd

from cab.controls import BASELINE, NO_ATTENTION
from cab.patterns import Pattern
from cab.result_sources import reference_store
from cab.scoring.boards import headline_metrics
from cab.scoring.intervals import Interval, mean_interval
from cab.scoring.quality import scores
from cab.scoring.results import load_results
from cab.track import Setting

SETTING = Setting("small", "cpu")
HEAD = """From the reference results (scale {scale}, {device}, {seeds}): means over seeds
of each task's first metric; an arrow says which way is better. *Over none* is what attention gains,
seed by seed, with its 95 % interval."""
NOTHING = """No reference results yet. `cab run --attn {name}` measures it."""


def sections() -> dict[str, str]:
    """Text by entry, of the entries that have scores."""
    results, headline = load_results(reference_store()), headline_metrics()
    lines: dict[str, list[str]] = {}
    seeds: dict[str, set[int]] = {}
    for pattern in Pattern:
        table = scores(results, SETTING.track(pattern))
        for task in sorted(map(str, table["task"].unique())):
            if task not in headline:
                continue
            rows = table[(table["task"] == task) & (table["metric"] == headline[task][0])]
            by_seed = rows.pivot_table(index="seed", columns="entry", values="value")
            higher = bool(rows["higher_is_better"].iloc[0]) if len(rows) else True
            for entry in map(str, by_seed.columns):
                lines.setdefault(entry, []).append(
                    _line(pattern, task, headline[task][0], higher, by_seed, entry)
                )
                seeds.setdefault(entry, set()).update(by_seed[entry].dropna().index)
    return {entry: _section(found, len(seeds[entry])) for entry, found in lines.items()}


def _section(lines: list[str], seeds: int) -> str:
    words = "one seed" if seeds == 1 else f"up to {seeds} seeds"
    head = HEAD.format(scale=SETTING.scale, device=SETTING.device, seeds=words)
    table = ["| pattern | task | metric | here | softmax | none | over none | |", "|---" * 8 + "|"]
    return "\n".join([head, "", *table, *lines])


def _line(
    pattern: Pattern, task: str, metric: str, higher: bool, by_seed: pd.DataFrame, entry: str
) -> str:
    here, softmax, none = (
        f"{by_seed[name].mean():.4g}" if name in by_seed else "-"
        for name in (entry, BASELINE, NO_ATTENTION)
    )
    gain, verdict = "-", ""
    if NO_ATTENTION in by_seed and entry != NO_ATTENTION:
        differences = (by_seed[entry] - by_seed[NO_ATTENTION]).dropna()
        found = mean_interval((differences if higher else -differences).tolist())
        gain, verdict = _gain(found), _verdict(found)
    arrow = "↑" if higher else "↓"
    return (
        f"| {pattern.abbreviation} | `{task}` | {metric} {arrow} | {here} | {softmax} | {none} | "
        f"{gain} | {verdict} |"
    )


def _gain(found: Interval) -> str:
    if not found.known:
        return f"{found.value:+.3g}"
    return f"{found.value:+.3g} ({found.low:+.3g} .. {found.high:+.3g})"


def _verdict(found: Interval) -> str:
    if not found.known:
        return "too few seeds"
    if found.low > 0:
        return "better"
    return "worse" if found.high < 0 else "not told apart"
