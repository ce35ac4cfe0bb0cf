"""Write docs/findings.md: claims of papers beside what probes and boards measure.

python docs/build_findings.py           # write
python docs/build_findings.py --check   # exit code 1 where the file is stale

The claims are in docs/claims.py and docs/board_claims.py, the numbers in results/reference; the
verdicts follow from both.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from board_findings import anchor, sections
from claims import FINDINGS
from expectations import Judgement, Scores, Verdict
from finding import Finding

from cab.result_sources import reference_store
from cab.scoring.intervals import mean_interval
from cab.scoring.reference_lines import MARK
from cab.scoring.results import Results, load_results
from cab.sheets.words import plus_minus, significant

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "findings.md"

HEAD = """# Findings

<!-- Written by docs/build_findings.py from docs/claims.py, docs/board_claims.py and
results/reference; do not edit. -->

What papers claim of attention mechanisms, beside what is measured at scale `small` on a CPU: first
by probes, then [by the boards of real tasks](#what-the-boards-say).

## What the probes say

A probe isolates one ability on a problem with a known ceiling, so its numbers explain scores on
real tasks; they say nothing of what a large model with that mechanism would do.

Every number is the mean over {seeds} training seeds ± half of the 95 % interval (Student's t).
Comparisons are paired by seed. A claim *holds* or *does not hold* where the interval lies wholly on
one side; otherwise it is *open*. The verdicts are computed, not written by hand: another
measurement in `results/reference` writes another page (`make docs`).

{summary}
"""

NOT_MEASURED = """The reference results have no scores of today's code: it changed since they were
measured. The command measures them."""


def main() -> int:
    """Write the page, or compare it with what is there."""
    text = page()
    if "--check" in sys.argv[1:]:
        if TARGET.read_text(encoding="utf-8") == text:
            return 0
        print("docs/findings.md is stale: run `make docs`", file=sys.stderr)
        return 1
    TARGET.write_text(text, encoding="utf-8")
    return 0


def page() -> str:
    """The whole page."""
    results = load_results(reference_store())
    judged = [(finding, judgements(finding, results)) for finding in FINDINGS]
    used = {finding.task for finding in FINDINGS}
    seeds = int(results.rows[results.rows["task"].isin(used)]["seed"].nunique())
    parts = [HEAD.format(seeds=seeds, summary=_summary(judged))]
    parts += [_section(finding, found, results) for finding, found in judged]
    parts += sections(results)
    return "\n".join(parts)


def judgements(finding: Finding, results: Results) -> list[Judgement]:
    """The verdict on every expectation of a finding; none where it was not measured."""
    scores = scores_of(finding, results)
    if not _measured(finding, scores):
        return []
    return [expectation.judge(scores) for expectation in finding.expectations]


def _measured(finding: Finding, scores: Scores) -> bool:
    """Whether today's code has been measured; older rows are not current."""
    return all(scores.has(metric) for metric in finding.metrics)


def scores_of(finding: Finding, results: Results) -> Scores:
    """Scores of the finding's task and pattern at scale small on a CPU."""
    rows = results.select(
        kind="quality", task=finding.task, pattern=finding.pattern, scale="small", device="cpu"
    )
    return Scores(rows[rows["status"] == "ok"])


def _summary(judged: list[tuple[Finding, list[Judgement]]]) -> str:
    lines = ["| finding | source | holds | open | does not hold |", "|---|---|---|---|---|"]
    for finding, found in judged:
        counts = Counter(j.verdict for j in found)
        numbers = [str(counts[v]) for v in (Verdict.HOLDS, Verdict.OPEN, Verdict.FAILS)]
        link = f"[{finding.title}](#{anchor(finding.title)})"
        lines.append(f"| {link} | {finding.source} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def _section(finding: Finding, found: list[Judgement], results: Results) -> str:
    scores = scores_of(finding, results)
    lines = [f"### {finding.title}\n", f"{finding.claim} ({finding.source})\n"]
    if finding.remark:
        lines.append(f"{finding.remark}\n")
    lines.append(f"    {finding.command()}\n")
    if not _measured(finding, scores):
        return "\n".join([*lines, f"{NOT_MEASURED}\n"])
    lines += [_table(finding, scores), ""]
    lines += ["| expected | measured | verdict |", "|---|---|---|"]
    lines += [f"| {j.claim} | {j.evidence} | {j.verdict} |" for j in found]
    return "\n".join(lines) + "\n"


def _table(finding: Finding, scores: Scores) -> str:
    arrows = ["↑" if scores.higher(metric) else "↓" for metric in finding.metrics]
    heads = [f"{metric} {arrow}" for metric, arrow in zip(finding.metrics, arrows, strict=True)]
    lines = [f"| | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for entry in (*finding.entries, *finding.references):
        cells = [_cell(scores, entry, metric) for metric in finding.metrics]
        name = f"*{entry.removeprefix(MARK)}*" if entry.startswith(MARK) else f"`{entry}`"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(scores: Scores, entry: str, metric: str) -> str:
    """A reference that has a value per metric of a sweep carries the metric's suffix."""
    values = scores.of(entry, metric)
    if values.empty and entry.startswith(MARK):
        suffix = metric.partition("_")[2].replace("_", "-")
        values = scores.of(f"{entry}-{suffix}", metric)
    if values.empty:
        return "-"
    if np.ptp(values) <= 1e-9 * abs(values).max():  # the same for every seed, up to rounding
        return significant(float(values.iloc[0]), 4)
    return plus_minus(mean_interval(values.to_numpy(float)))


if __name__ == "__main__":
    sys.exit(main())
