"""What a sweep has measured, as data frames."""

from __future__ import annotations

import math

import pandas as pd

from cab.cost_metrics import DENSITY, LATENCY, PEAK_MEMORY, TRACED_MEMORY, ratio_to
from cab.scoring.curves import Curves
from cab.scoring.intervals import Interval
from cab.sheets.files import inert
from cab.sheets.sheet import Value

COLUMNS = {
    "attention": "name; +compile behind it where it was compiled",
    "pattern": "noncausal-self, causal-self, noncausal-cross or causal-cross",
    "phase": "forward, forward_backward or decode",
    "batch": "sequences of a call",
    "heads": "heads",
    "head_dim": "width of a head",
    "dtype": "of the inputs",
    "length": "queries; in decode the tokens before the one that is timed",
    "keys": "keys",
    "status": "ok, or how the measurement ended: oom, timeout, unsupported, error, invalid",
    "latency": "seconds of a call, in decode of a token: median over processes",
    "latency_low": "lower end of its 95 % interval",
    "latency_high": "upper end",
    "baseline": "what it was timed in turns with",
    "ratio": "latency over the baseline's",
    "ratio_low": "lower end of its 95 % interval",
    "ratio_high": "upper end",
    "peak_memory": "bytes beyond the inputs",
    "traced_memory": "most bytes of tensors alive at once (CPU)",
    "density": "share of the visible pairs that a sparse entry reads; none for others",
    "tflops": "nominal TFLOP/s, see cab.scoring.nominal",
    "gbps": "compulsory GB/s, see there",
    "gemm_share": "the mechanism's own operations over the fastest matrix product here",
    "processes": "that were measured",
    "message": "why there is no number",
}
"""Columns of the wide frame"""


def wide_frame(curves: list[Curves]) -> pd.DataFrame:
    """A row for each attention, pattern, geometry, phase and length; its columns are `COLUMNS`."""
    lines = [_wide(curve, length) for curve in curves for length in curve.lengths()]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _wide(curve: Curves, length: int) -> dict[str, Value]:
    latency = curve.interval(LATENCY, length)
    ratio = curve.interval(ratio_to(curve.baseline), length)
    flops, moved = curve.rate(LATENCY, length)
    status, message = curve.ended.get(length, ("ok", ""))
    return {
        **_place(curve, length),
        "status": "ok" if latency.n else status,
        "latency": latency.value,
        "latency_low": latency.low,
        "latency_high": latency.high,
        "baseline": curve.baseline,
        "ratio": ratio.value,
        "ratio_low": ratio.low,
        "ratio_high": ratio.high,
        "peak_memory": curve.interval(PEAK_MEMORY, length).value,
        "traced_memory": curve.interval(TRACED_MEMORY, length).value,
        "density": curve.interval(DENSITY, length).value,
        "tflops": flops / 1e12,
        "gbps": moved / 1e9,
        "gemm_share": curve.interval("flop_utilisation", length).value,
        "processes": latency.n,
        "message": "" if latency.n else message,
    }


def long_frame(curves: list[Curves]) -> pd.DataFrame:
    """A row for each number: every metric that was recorded, with its interval."""
    lines: list[dict[str, Value]] = []
    for curve in curves:
        for metric, by_length in curve.samples.items():
            lines += [_number(curve, n, metric, curve.interval(metric, n)) for n in by_length]
        for length in curve.samples.get(LATENCY, {}):
            flops, moved = curve.rate(LATENCY, length)
            for metric, value in (("nominal_flop_rate", flops), ("compulsory_byte_rate", moved)):
                lines.append(_number(curve, length, metric, Interval(value, math.nan, math.nan, 1)))
        lines += [
            {**_place(curve, length), "baseline": curve.baseline, "metric": status}
            for length, (status, _) in curve.ended.items()
        ]
    return pd.DataFrame([{name: inert(value) for name, value in line.items()} for line in lines])


def _number(curve: Curves, length: int, metric: str, found: Interval) -> dict[str, Value]:
    return {
        **_place(curve, length), "baseline": curve.baseline, "metric": metric,
        "value": found.value, "low": found.low, "high": found.high, "processes": found.n,
    }  # fmt: skip


def _place(curve: Curves, length: int) -> dict[str, Value]:
    geometry = curve.geometry
    return {
        "attention": curve.attention,
        "pattern": curve.pattern,
        "phase": curve.phase,
        "batch": geometry.batch if geometry else None,
        "heads": geometry.heads if geometry else None,
        "head_dim": geometry.head_dim if geometry else None,
        "dtype": geometry.dtype if geometry else None,
        "length": length,
        "keys": curve.keys.get(length, length),
    }
