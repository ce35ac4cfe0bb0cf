"""Write docs/speed.md: papers' claims of speed beside what was measured.

python docs/build_speed.py           # write
python docs/build_speed.py --check   # exit code 1 where the file is stale

Claims and seconds are in docs/speed.json, which `python -m benchmarks.attentions.speed_claims`
writes, and those of sparse mechanisms in docs/sparse_speed.json (`python -m
benchmarks.attentions.sparse_speed`); the verdicts follow from them.
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
SPARSE = ROOT / "docs" / "sparse_speed.json"
ABOVE = 0.2
"""By how much a fitted exponent may lie above the claimed one"""

HEAD = """# Speed

<!-- Written by docs/build_speed.py from docs/*speed.json; do not edit. -->

What papers claim of the speed of attention mechanisms, beside what these implementations reach on
{processors}, one thread, torch {versions}. The papers' numbers are of GPUs and of their own
kernels, so a claim that does not hold here is one about this machine and this code.

Both sides of a ratio take turns; it is the geometric mean over rounds with its 95 % interval
(Student's t), of the processor's seconds, for one head of 64 in float32. A claim *holds* or *does
not hold* where the interval lies wholly on one side; otherwise it is *open*.

    python -m benchmarks.attentions.speed_claims --out docs/speed.json
"""

FASTER = 2.0
"""What a sparse mechanism is to be over fused softmax"""

SPARSE_HEAD = """## Sparse mechanisms beside fused softmax

A forward pass over {length:,} tokens, batch 1, 4 heads of 64, on one thread, of mechanisms that
read at most 15 % of the visible pairs, beside PyTorch's fused causal attention, which reads all of
them. Queries and keys are random, so that neighbours have nothing in common: what a mechanism
chooses for each query or block is as scattered as it can be. Density is what was read of these.

    python -m benchmarks.attentions.sparse_speed --out docs/sparse_speed.json

| mechanism | pattern | options | density | times faster | {factor:g} times |
|---|---|---|---|---|---|"""

FLEX = """PyTorch's FlexAttention is not used for blocks on the CPU: compiled, its forward pass was
1.25 times as fast as the block-sparse engine at this length, but it has no backward pass there, and
every new size compiles for seconds and needs a C++ compiler (`python -m
benchmarks.attentions.flex_blocks`).
"""

SLOW = {
    "superlinear": "`superlinear` chooses spans for each query: a tile of queries computes with "
    "the keys that any of them reads, 1.9 times the products that are needed, and gathering keys, "
    "masks and one softmax for each of the four spans take three quarters of the time.",
    "paro": "`paro` looks at the softmax rows of 4 of 64 queries in two orders before it reads a "
    "block, which takes 63 % of the time; the authors choose once, offline. With one query of a "
    "block in one order the choice takes 18 %.",
    "routing": "`routing` without an order ranks all tokens by their similarity to each centroid: "
    "sorting and gathering take 40 % of the time. And 6 % of all pairs are 12 % of the causal.",
}
"""Where the profile says that the time goes, by entry"""


def main() -> int:
    """Write the page, or compare it with what is there."""
    claims, sparse = (json.loads(path.read_text(encoding="utf-8")) for path in (DATA, SPARSE))
    text = page(claims) + "\n" + sparse_section(sparse)
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


def sparse_section(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The table of sparse mechanisms, and why some are not faster."""
    length = next(iter(rows.values()))["length"]
    lines, slow = [SPARSE_HEAD.format(length=length, factor=FASTER)], []
    for row in rows.values():
        ratio = ratio_interval(row["softmax"], row["seconds"])
        verdict = decide(ratio, FASTER)
        options = ", ".join(f"`{name}={value}`" for name, value in row["options"].items())
        density = "" if row["density"] is None else f"{100 * row['density']:.1f} %"
        lines.append(
            f"| `{row['entry']}` | {row['pattern']} | {options} | {density} | "
            f"{ratio.value:.3g} {_ends(ratio)} | {verdict} |"
        )
        if verdict is not Verdict.HOLDS and row["entry"] not in slow:
            slow.append(row["entry"])
    return "\n".join([*lines, "", *(SLOW[entry] + "\n" for entry in slow), FLEX])


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
