"""Write docs/speed.md: papers' claims of speed beside what was measured.

python docs/build_speed.py           # write
python docs/build_speed.py --check   # exit code 1 where the file is stale

Claims and seconds are in docs/speed.json, which `python -m benchmarks.attentions.speed_claims`
writes; the verdicts follow from them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from expectations import Verdict

from cab.scoring.growth import power_law
from cab.scoring.intervals import Interval, mean_interval

ROOT = Path(__file__).resolve().parent.parent
DATA, TARGET = ROOT / "docs" / "speed.json", ROOT / "docs" / "speed.md"
ABOVE = 0.2
"""By how much a fitted exponent may lie above the claimed one"""

HEAD = """# Speed

<!-- Written by docs/build_speed.py from docs/speed.json; do not edit. -->

What papers claim of the speed of attention mechanisms, beside what these implementations reach on
{processors}, one thread, torch {versions}. The papers' numbers are of GPUs and of their own
kernels, so a claim that does not hold here is one about this machine and this code.

Both sides of a ratio take turns; it is the geometric mean over rounds with its 95 % interval
(Student's t), of the processor's seconds, for one head of 64 in float32. A claim *holds* or *does
not hold* where the interval lies wholly on one side; otherwise it is *open*.

    python -m benchmarks.attentions.speed_claims --out docs/speed.json
"""


def main() -> int:
    """Write the page, or compare it with what is there."""
    text = page(json.loads(DATA.read_text(encoding="utf-8")))
    if "--check" in sys.argv[1:]:
        if TARGET.exists() and TARGET.read_text(encoding="utf-8") == text:
            return 0
        print("docs/speed.md is stale: run `make docs`", file=sys.stderr)
        return 1
    TARGET.write_text(text, encoding="utf-8")
    return 0


def page(claims: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole page."""
    machines, versions = (
        ", ".join(sorted({claim[key] for claim in claims.values()}))
        for key in ("processor", "torch")
    )
    parts = [HEAD.format(processors=machines, versions=versions)]
    parts += [_section(claim) for claim in claims.values()]
    return "\n".join(parts)


def _section(claim: Mapping[str, Any]) -> str:
    options = ", ".join(f"`{name}={value}`" for name, value in claim["options"].items())
    passes = "forward and backward" if claim["train"] else "forward"
    setting = f"`{claim['entry']}`, {claim['pattern']}, {options or 'default options'}, {passes}"
    growth = "exponent" in claim
    expected, measured, verdict = judge_growth(claim) if growth else judge_speed(claim)
    lines = [f"## {claim['title']}\n", f"{claim['claim']} ({claim['source']})\n", f"{setting}.\n"]
    lines += ["| | seconds, by round |", "|---|---|"]
    for name, seconds in claim["seconds"].items():
        shown = {"entry": f"`{claim['entry']}`", "baseline": _baseline(claim)}.get(name)
        label = shown or f"length {int(name):,}"
        lines.append(f"| {label} | {', '.join(f'{s:.3g}' for s in seconds)} |")
    lines += ["", "| expected | measured | verdict |", "|---|---|---|"]
    lines.append(f"| {expected} | {measured} | {verdict} |")
    return "\n".join(lines) + "\n"


def _baseline(claim: Mapping[str, Any]) -> str:
    baseline = str(claim.get("baseline", ""))
    return "`softmax`" if baseline == "softmax" else f"its {baseline} form"


def judge_speed(claim: Mapping[str, Any]) -> tuple[str, str, Verdict]:
    """Expected, measured and verdict of a ratio."""
    seconds = claim["seconds"]
    ratio = ratio_interval(seconds["baseline"], seconds["entry"])
    expected = f"{claim['factor']:g} times as fast at {claim['length']:,} tokens"
    return expected, f"{ratio.value:.3g} times {_ends(ratio)}", decide(ratio, claim["factor"])


def judge_growth(claim: Mapping[str, Any]) -> tuple[str, str, Verdict]:
    """Expected, measured and verdict of an exponent."""
    costs = {int(n): seconds for n, seconds in claim["seconds"].items()}
    fitted = power_law(costs)
    if fitted is None:
        return "", "", Verdict.UNKNOWN
    found = fitted.exponent
    most = claim["exponent"] + ABOVE
    # Less is better here: the interval is to lie below.
    verdict = decide(Interval(-found.value, -found.high, -found.low, found.n), -most)
    return (
        f"an exponent of {claim['exponent']:g}, or up to {most:g}",
        (f"{found.value:.2f} {_ends(found)}"),
        verdict,
    )


def ratio_interval(numerators: Sequence[float], denominators: Sequence[float]) -> Interval:
    """Geometric mean of the ratios of rounds, and its interval."""
    logs = np.log(np.array(numerators) / np.array(denominators))
    found = mean_interval(logs)
    value, low, high = (float(np.exp(x)) for x in (found.value, found.low, found.high))
    return Interval(value, low, high, found.n)


def decide(found: Interval, least: float) -> Verdict:
    """Whether an interval lies at or above a bound."""
    if not found.known:
        return Verdict.UNKNOWN
    if found.low >= least:
        return Verdict.HOLDS
    return Verdict.FAILS if found.high < least else Verdict.OPEN


def _ends(found: Interval) -> str:
    return f"({found.low:.3g} to {found.high:.3g})" if found.known else "(no interval)"


if __name__ == "__main__":
    sys.exit(main())
