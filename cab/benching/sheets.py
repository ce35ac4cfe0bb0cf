"""What a sweep has measured, as sheets: costs by length, growth, and from which length it pays."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from cab.cost_metrics import DENSITY, LATENCY, PEAK_MEMORY, TRACED_MEMORY, of_baseline, ratio_to
from cab.info import AttentionInfo
from cab.kernel_names import as_written
from cab.patterns import Pattern
from cab.registries import ATTENTIONS
from cab.scoring.curves import Curves, of_a_repeat
from cab.scoring.growth import claimed_exponent, power_law, verdict
from cab.scoring.intervals import UNKNOWN, Interval, process_interval
from cab.sheets.sheet import Column, Line, Sheet
from cab.sheets.words import NOTHING, UNSURE, byte_size, duration, share, significant

_SHORT = 10
"""Longest name of a baseline in a heading"""
PHASES = {"forward": "forward", "forward_backward": "fwd + bwd", "decode": "decode"}

LEGEND = {
    "length": "queries of a call; in decode the tokens before the one that is timed",
    "latency": "median time of a call; in decode of a token",
    "/ X": "latency over that of X, timed in turns with it; in brackets where the ratio of a "
    "repeated sweep would lie (95 %)",
    "peak": "memory beyond the inputs, as the process or the device had it",
    "traced": "most bytes of tensors alive at once: the same in every process",
    "TFLOP/s": "nominal: 4 B H Lq Lk D a forward pass, half in causal self attention, 3.5 times as "
    "much with the backward pass, whatever the mechanism computes",
    "GB/s": "compulsory: q, k, v and output once, in a backward pass again with their gradients",
    "of GEMM": "the mechanism's own operations, by its formula, over the fastest matrix product "
    "here",
    "density": "share of the visible pairs of query and key that a sparse entry reads",
    "CAB's fit": "where a parabola through the other's costs meets a line through its own",
}
"""Words of the tables"""


def cost_sheets(curves: Sequence[Curves]) -> Iterator[Sheet]:
    """A sheet for each pattern, geometry and phase: entries by length, their baseline below."""
    places = list(dict.fromkeys((c.pattern, c.scale) for c in curves))
    phases = list(PHASES)

    def place(curve: Curves) -> tuple[int, int]:
        return places.index((curve.pattern, curve.scale)), phases.index(curve.phase)

    ordered = sorted(curves, key=place)
    for _, group in groupby(ordered, key=lambda c: (c.pattern, c.scale, c.phase, c.baseline)):
        yield _cost_sheet(list(group))


def _cost_sheet(curves: list[Curves]) -> Sheet:
    first = curves[0]
    baseline = first.baseline
    decode = first.phase == "decode"
    sparse = any(c.samples.get(DENSITY) for c in curves)
    columns = (
        Column("context" if decode else "length", right=True),
        Column("attention"),
        Column("per token" if decode else "latency", right=True),
        Column(_ratio_title(baseline), right=True),
        Column("peak", right=True, keep=1),
        Column("TFLOP/s", right=True),
        Column("GB/s", right=True),
        Column("of GEMM", right=True, keep=2),
        Column("traced", right=True, keep=3),
        *([Column("density", right=True, keep=4)] if sparse else []),
    )
    lines = []
    beside = not any(c.attention == baseline for c in curves)
    for length in sorted({n for c in curves for n in c.lengths()}):
        lines += [_line(c, length, sparse) for c in curves if length in c.lengths()]
        if beside:
            lines += _baseline_line(curves, length, sparse)
    geometry = first.geometry.title if first.geometry else first.scale
    source = first.scale.partition(" S")[2]
    place = f"{geometry}{_keys(source)}"
    title = f"{first.pattern}, {PHASES[first.phase]}: {place}; ratios to {baseline}"
    notes = _notes(curves)
    return Sheet(title, columns, tuple(lines), notes=tuple(notes))


def _keys(source: str) -> str:
    return f", {source} keys" if source else ""


def _line(curve: Curves, length: int, sparse: bool) -> Line:
    latency = curve.interval(LATENCY, length)
    use = curve.interval("flop_utilisation", length)
    status = curve.ended.get(length, (NOTHING, ""))[0]
    ratio = of_a_repeat(curve.interval(ratio_to(curve.baseline), length))
    shown = (
        str(length),
        curve.attention,
        duration(latency.value) if latency.n else status,
        _ratio(ratio),
        _bytes(curve.interval(PEAK_MEMORY, length)),
        *_rates(*curve.rate(LATENCY, length)),
        f"{100 * use.value:.2g} %" if use.n else NOTHING,
        _bytes(curve.interval(TRACED_MEMORY, length)),
        *([share(curve.interval(DENSITY, length).value)] if sparse else []),
    )
    return Line(shown, {})


def _baseline_line(curves: Sequence[Curves], length: int, sparse: bool) -> list[Line]:
    """The baseline, from the processes of all that were timed in turns with it."""
    name = curves[0].baseline
    metric = of_baseline(LATENCY, name)
    measured = [c for c in curves if length in c.samples.get(metric, {})]
    if not measured:
        return []
    latency = process_interval([s for c in measured for s in c.samples[metric][length]])
    traced = [c.interval(of_baseline(TRACED_MEMORY, name), length) for c in measured]
    known = [t for t in traced if t.n]
    scale = measured[0].interval(metric, length).value / latency.value
    rates = (rate * scale for rate in measured[0].rate(metric, length))
    shown = (
        str(length), name, duration(latency.value), "baseline", NOTHING, *_rates(*rates), NOTHING,
        _bytes(known[0]) if known else NOTHING, *([NOTHING] if sparse else []),
    )  # fmt: skip
    return [Line(shown, {})]


def _ratio_title(baseline: str) -> str:
    """The title of the sheet has the name in full."""
    short = baseline if len(baseline) <= _SHORT else f"{baseline[: _SHORT - 3]}..."
    return f"/ {short} (95 %)"


def _rates(flops: float, moved: float) -> tuple[str, str]:
    return _rate(flops / 1e12, 4), _rate(moved / 1e9, 3)


def _rate(rate: float, decimals: int) -> str:
    """Short, so that a narrow terminal has room for it; files have every digit."""
    if not math.isfinite(rate):
        return NOTHING
    least = 10.0**-decimals
    if rate < least:
        return f"<{least:.{decimals}f}"
    shown = significant(rate, 3 if rate >= 0.1 else 2)
    return shown if len(shown.partition(".")[2]) <= decimals else f"{rate:.{decimals}f}"


def _notes(curves: Sequence[Curves]) -> list[str]:
    notes = []
    for curve in curves:
        for name, why in curve.left_out.items():
            notes.append(f"{curve.attention} was not compared with {name}: {why}")
        late = [n for n, (status, _) in curve.ended.items() if status == "timeout"]
        if late:
            listed = ", ".join(str(n) for n in sorted(late))
            notes.append(
                f"{curve.attention} at {listed}: time ran out, in some processes at least; "
                "raise --seconds"
            )
    busy, points = sum(c.noisy for c in curves), sum(c.points for c in curves)
    if busy:
        notes.append(
            f"the machine was busy with something else during {busy} of {points} timed points; "
            "ratios suffer less than times"
        )
    checked = sorted({how for c in curves for how in c.checked})
    if checked:
        notes.append(f"timed calls were held to: {', '.join(checked)}")
    return notes


def scaling_sheet(curves: Sequence[Curves]) -> Sheet:
    """Exponents: claimed and measured."""
    columns = (
        Column("attention"), Column("phase"), Column("cost"), Column("claimed", right=True),
        Column("measured", right=True), Column("95 %", right=True), Column("verdict"),
    )  # fmt: skip
    lines = [
        Line(
            (
                curve.attention,
                PHASES[curve.phase],
                cost,
                NOTHING if claimed is None else f"{claimed:g}",
                f"{measured.value:.2f}" if measured.n else NOTHING,
                f"{measured.low:.2f} to {measured.high:.2f}" if measured.known else NOTHING,
                said,
            ),
            {},
        )
        for curve in curves
        for cost, measured, claimed, said in growth_of(curve)
        if measured.n
    ]
    return Sheet("Growth with the length (exponent)", columns, tuple(lines))


def growth_of(curve: Curves) -> list[tuple[str, Interval, float | None, str]]:
    """Cost, measured exponent, claimed exponent and verdict, for time and for memory."""
    info = _info(as_written(curve.attention))
    causal = Pattern.parse(curve.pattern).causal
    time = None if info is None else claimed_exponent(info.time, causal)
    memory = None if info is None else claimed_exponent(info.memory, causal)
    if curve.phase == "decode":
        # A claim speaks of all tokens together.
        time = None if time is None else max(0.0, time - 1)
    law = curve.fit(LATENCY)
    measured = UNKNOWN if law is None else law.exponent
    found = [("time", measured, time, verdict(measured, time))]
    if curve.phase == "forward":
        law = power_law(curve.medians(TRACED_MEMORY))
        measured = UNKNOWN if law is None else law.exponent
        # The output is part of the peak and grows with the length, which claims leave out.
        claim = None if memory is None else max(1.0, memory)
        found.append(("memory", measured, claim, verdict(measured, claim)))
    return found


def paying_sheet(curves: Sequence[Curves]) -> Sheet:
    """From which length it pays."""
    columns = (
        Column("attention"), Column("phase"), Column("cost"), Column("pays"),
        Column("CAB's fit", right=True),
    )  # fmt: skip
    names = dict.fromkeys(curve.baseline for curve in curves)
    title = f"Pays against {', '.join(names)} from (95 % interval)"
    lines = []
    for curve in curves:
        for metric, cost in ((LATENCY, "time"), (TRACED_MEMORY, "memory")):
            found = curve.pays(metric, curve.baseline)
            if curve.baseline == curve.attention or found is None:
                continue
            fitted = None if curve.phase == "decode" else curve.cab_length(metric, curve.baseline)
            shown = (
                curve.attention, PHASES[curve.phase], cost, found.words(),
                NOTHING if fitted is None else _fitted(fitted),
            )  # fmt: skip
            lines.append(Line(shown, {}))
    return Sheet(title, columns, tuple(lines))


def shown_words(sheets: Iterable[Sheet]) -> set[str]:
    """Titles of the columns that are shown."""
    titles = {column.title for sheet in sheets for column in sheet.columns}
    return {"/ X" if title.startswith("/ ") else title for title in titles}


def _fitted(length: float) -> str:
    return f"{length:,.0f}" if math.isfinite(length) and length > 0 else "not reached"


def _info(attention: str) -> AttentionInfo | None:
    entries = ATTENTIONS.entries()
    return entries[attention].info if attention in entries else None


def _ratio(interval: Interval) -> str:
    if not interval.n:
        return NOTHING
    value = f"{significant(interval.value)}x"
    if interval.unsure:
        return f"{value} ({UNSURE})"
    if not interval.known:
        return value
    return f"{value} ({significant(interval.low)}-{significant(interval.high)})"


def _bytes(interval: Interval) -> str:
    return byte_size(interval.value) if interval.n else NOTHING
