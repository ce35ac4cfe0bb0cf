"""What the boards of real tasks say, as sections of docs/findings.md."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from board_claims import BOARD_FINDINGS, BoardFinding
from board_expectations import CONTROLS, Boards, difference_words
from expectations import Judgement, Verdict

from cab.controls import BASELINE, NO_ATTENTION
from cab.patterns import Pattern
from cab.scoring.cost import axis, costs
from cab.scoring.results import Results
from cab.sheets.words import NOTHING, bounds, count_range, signed
from cab.track import Track

HEAD = """## What the boards say

The boards of the reference results at scale `small` on a CPU (`cab leaderboard`): the index is the
mean over a pattern's tasks of the log-ratio to softmax, +0.1 being about 10 % better. A comparison
in which one side has a single seed is judged by the spread over tasks alone
([scoring.md](scoring.md)). No interval is corrected for the number of claims on this page: of
mechanisms that are in fact equal, one comparison in twenty seems to differ.

{summary}
"""
CHEAP = ("linear-elu", "local")
"""What costs next to nothing: a mechanism must be worth more than these"""


def sections(results: Results) -> list[str]:
    """All parts, in their order."""
    boards = Boards(results)
    judged = [(f, [e.judge(boards) for e in f.expectations]) for f in BOARD_FINDINGS]
    parts = [HEAD.format(summary=_summary(judged))]
    parts += [_section(finding, found) for finding, found in judged if _measured(found)]
    return [*parts, _where_attention_helps(boards), _against_the_cheap(results, boards)]


def _measured(found: Sequence[Judgement]) -> list[Judgement]:
    return [j for j in found if j.verdict is not Verdict.UNKNOWN]


def anchor(title: str) -> str:
    """Of a heading, as renderers of Markdown make it."""
    kept = "".join(c for c in title.lower() if c.isalnum() or c in " -")
    return kept.replace(" ", "-")


def _summary(judged: Sequence[tuple[BoardFinding, list[Judgement]]]) -> str:
    heads = "finding | source | holds | on these tasks | open | not on these tasks | does not hold"
    order = (
        Verdict.HOLDS, Verdict.HOLDS_HERE, Verdict.OPEN, Verdict.FAILS_HERE, Verdict.FAILS,
        Verdict.UNKNOWN,
    )  # fmt: skip
    lines = [f"| {heads} | not measured |", "|---|---|---|---|---|---|---|---|"]
    for finding, found in judged:
        if not _measured(found):
            continue
        counts = Counter(j.verdict for j in found)
        numbers = " | ".join(str(counts[v]) for v in order)
        title = f"[{finding.title}](#{anchor(finding.title)})"
        lines.append(f"| {title} | {finding.source} | {numbers} |")
    left = [finding.title for finding, found in judged if not _measured(found)]
    if left:
        lines += ["", f"Not measured yet: {'; '.join(left)}."]
    return "\n".join(lines)


def _section(finding: BoardFinding, found: list[Judgement]) -> str:
    lines = [f"### {finding.title}\n", f"{finding.claim} ({finding.source})\n"]
    lines += ["| expected | measured | verdict |", "|---|---|---|"]
    lines += [f"| {j.claim} | {j.evidence} | {j.verdict} |" for j in _measured(found)]
    left = [j.claim for j in found if j.verdict is Verdict.UNKNOWN]
    if left:
        lines += ["", f"Not measured yet: {'; '.join(left)}."]
    return "\n".join(lines) + "\n"


def _where_attention_helps(boards: Boards) -> str:
    lines = [
        "### Where attention helps at all\n",
        f"The score of `{NO_ATTENTION}`, which mixes no tokens, on every task that counts: what "
        "softmax attention is worth there, in log-ratio.\n",
        f"| pattern | task | `{NO_ATTENTION}` |",
        "|---|---|---|",
    ]
    for pattern, found in boards.by_pattern.items():
        if NO_ATTENTION not in {s.entry for s in found.standings}:
            continue
        scores = found.standing(NO_ATTENTION).tasks
        lines += [
            f"| {pattern.abbreviation} | {task} | {signed(scores[task])} |"
            for task in sorted(scores, key=lambda task: scores[task])
        ]
    return "\n".join(lines) + "\n"


def _against_the_cheap(results: Results, boards: Boards) -> str:
    lines = [
        "### What a mechanism gives over what costs next to nothing\n",
        "Index over softmax, and over linear attention and a window of neighbours (`local`) where "
        "they serve the pattern. *cost*: latency of a forward pass relative to softmax's at the "
        "longest length, where it was measured; a mechanism that is no cheaper than "
        "`linear-elu` and no better has nothing to offer here.\n",
        "| pattern | entry | seeds | index | over `linear-elu` | over `local` | cost |",
        "|---|---|---|---|---|---|---|",
    ]
    for pattern, found in boards.by_pattern.items():
        by_entry = _relative_costs(results, pattern)
        for s in found.standings:
            if s.rank is None or s.entry in (*CONTROLS, BASELINE):
                continue
            gains = [
                NOTHING if s.entry == cheap else _gain(boards, pattern, s.entry, cheap)
                for cheap in CHEAP
            ]
            cost = by_entry.get(s.entry, math.nan)
            lines.append(
                f"| {pattern.abbreviation} | `{s.entry}` | {count_range(*s.seeds)} | "
                f"{signed(s.index.value)} ({bounds(s.index, 3, 'to')}) | {' | '.join(gains)} | "
                f"{f'{cost:.2f}x' if cost > 0 else NOTHING} |"
            )
    return "\n".join(lines) + "\n"


def _gain(boards: Boards, pattern: Pattern, one: str, other: str) -> str:
    general, here = boards.difference(pattern, one, other)
    return difference_words(general, here) or NOTHING


def _relative_costs(results: Results, pattern: Pattern) -> dict[str, float]:
    latency = axis("latency")
    if latency is None:
        raise LookupError("no axis of latency")
    found = costs(results, Track(pattern.value, "small", "cpu"), latency).by_entry
    if BASELINE not in found:
        return {}
    return {entry: cost.value / found[BASELINE].value for entry, cost in found.items()}
