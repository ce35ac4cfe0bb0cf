"""What the reference results say of an entry: scores beside softmax and no attention."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from cab.controls import BASELINE, NO_ATTENTION, QUALITY
from cab.patterns import Pattern
from cab.result_sources import reference_store
from cab.schema import Status
from cab.scoring.boards import headline_metrics
from cab.scoring.intervals import Interval, mean_interval
from cab.scoring.quality import scores
from cab.scoring.results import load_results
from cab.track import Setting

SETTING = Setting("small", "cpu")
HEAD = """From the reference results (scale {scale}, {device}, {seeds}): means over seeds
of each task's first metric; an arrow says which way is better. *Over none* is what attention gains,
seed by seed, with its 95 % interval."""
WORSE, OPEN = "worse", "not told apart"
NOTHING = """No reference results yet. `cab run --attn {name}` measures it."""


WHY = {
    ("decon-mlp", "associative-recall"): "No token reads another, so that nothing can be looked "
    "up: a control, which shows what mixing is worth.",
    ("s4d", "associative-recall"): "Its filter does not hang on what the tokens are, so that no "
    "key can be told from another.",
    ("routing", "language-modeling"): "Causally a token reads the latest keys of its query's "
    "cluster, and not its neighbours, which next characters hang on most; the paper gives half of "
    "the heads to local attention.",
    ("softmax-norm", "language-modeling"): "The seeds lie far apart: two are well on their way "
    "when the recipe ends and one has hardly begun.",
}
"""Why a mechanism is not seen to be better than none, by entry and task"""


def sections() -> dict[str, str]:
    """Text by entry, of the entries that have scores or ends."""
    results, headline = load_results(reference_store()), headline_metrics()
    lines: dict[str, list[str]] = {}
    below: dict[str, list[str]] = {}
    seeds: dict[str, set[int]] = {}
    for pattern in Pattern:
        table = scores(results, SETTING.track(pattern))
        for entry, said in _ends(results.select(SETTING.track(pattern), kind=QUALITY), pattern):
            below.setdefault(entry, []).append(said)
        for task in sorted(map(str, table["task"].unique())):
            if task not in headline:
                continue
            rows = table[(table["task"] == task) & (table["metric"] == headline[task][0])]
            by_seed = rows.pivot_table(index="seed", columns="entry", values="value")
            higher = bool(rows["higher_is_better"].iloc[0]) if len(rows) else True
            for entry in map(str, by_seed.columns):
                line, verdict = _line(pattern, task, headline[task][0], higher, by_seed, entry)
                lines.setdefault(entry, []).append(line)
                if verdict in (WORSE, OPEN) and (entry, task) in WHY:
                    below.setdefault(entry, []).append(f"`{task}`: {WHY[entry, task]}")
                seeds.setdefault(entry, set()).update(by_seed[entry].dropna().index)
    return {
        entry: _section(lines.get(entry, []), below.get(entry, []), len(seeds.get(entry, ())))
        for entry in lines.keys() | below.keys()
    }


def _ends(rows: pd.DataFrame, pattern: Pattern) -> Iterator[tuple[str, str]]:
    """Entries with cells that ended without a score, and a sentence for each task and message."""
    ended = rows[rows["status"].isin([Status.UNSUPPORTED.value, Status.DIVERGED.value])]
    columns = ["entry", "task", "status", "message"]
    for entry, task, status, message in ended[columns].drop_duplicates().itertuples(index=False):
        said = str(message).partition(": ")[2] or str(message)
        yield str(entry), f"`{task}` on {pattern}: {status} ({said})."


def _section(lines: list[str], below: list[str], seeds: int) -> str:
    if not lines:
        return "\n\n".join(below)
    words = "one seed" if seeds == 1 else f"up to {seeds} seeds"
    head = HEAD.format(scale=SETTING.scale, device=SETTING.device, seeds=words)
    table = ["| pattern | task | metric | here | softmax | none | over none | |", "|---" * 8 + "|"]
    return "\n".join([head, "", *table, *lines, *("\n" + said for said in below)])


def _line(
    pattern: Pattern, task: str, metric: str, higher: bool, by_seed: pd.DataFrame, entry: str
) -> tuple[str, str]:
    """A line of the table, and its verdict."""
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
    line = (
        f"| {pattern.abbreviation} | `{task}` | {metric} {arrow} | {here} | {softmax} | {none} | "
        f"{gain} | {verdict} |"
    )
    return line, verdict


def _gain(found: Interval) -> str:
    if not found.known:
        return f"{found.value:+.3g}"
    return f"{found.value:+.3g} ({found.low:+.3g} .. {found.high:+.3g})"


def _verdict(found: Interval) -> str:
    if not found.known:
        return "too few seeds"
    if found.low > 0:
        return "better"
    return WORSE if found.high < 0 else OPEN
