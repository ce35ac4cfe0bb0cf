"""The GPU benchmark's numbers as Markdown for docs/lla.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from benchmarks.lla.gpu_entries import SDPA, TRITON
from benchmarks.lla.gpu_rows import Result
from benchmarks.memory import growth_exponent
from benchmarks.timing import spread
from cab.schema import Status

_HEAD = ("D", "L", "mechanism", "ms [quartiles]", "/ SDPA", f"/ {TRITON}", "peak MiB")
_PARALLEL = ("FLOPs / SDPA's", "utilisation", "T", "residual")
_DECODE = ("cache GB/s",)
_LONG = 8192
"""From this length on the kernels are to be ahead of the torch path."""


def markdown(results: Sequence[Result]) -> str:
    """A table per phase, and what is aimed at."""
    lines: list[str] = []
    for phase in dict.fromkeys(r.phase for r in results):
        head = _HEAD + (_DECODE if phase == "decode" else _PARALLEL)
        lines += ["", f"### {phase}", "", _line(head), _line("---" for _ in head)]
        lines += [_line(_cells(r, len(head))) for r in results if r.phase == phase]
    return "\n".join([*lines, "", "### Aims", "", *aims(results)])


def aims(results: Sequence[Result]) -> Iterator[str]:
    """What the kernels aim at, beside what was measured."""
    timed = [r for r in results if r.status is Status.OK]
    for dim in dict.fromkeys(r.dim for r in timed):
        own = [r for r in timed if r.dim == dim]
        kernels = [r for r in own if r.entry.name == TRITON]
        for r in kernels:
            if r.phase == "forward" and r.over_sdpa and r.implied_over_sdpa:
                excess = spread(r.over_sdpa).median / r.implied_over_sdpa
                yield _aim(f"D={dim}, L={r.length}, forward: time / SDPA over FLOPs / SDPA's",
                           excess, 1.3, upper=True)  # fmt: skip
        for length in sorted({r.length for r in own if r.length >= _LONG}):
            torch_paths = [
                spread(r.over_triton).median
                for r in own
                if r.length == length
                and r.phase == "forward"
                and r.over_triton
                and r.entry.name.startswith("lla torch")
            ]
            if torch_paths:
                yield _aim(f"D={dim}, L={length}, forward: faster torch path / {TRITON}",
                           min(torch_paths), 3.0, upper=False)  # fmt: skip
        for phase in dict.fromkeys(r.phase for r in kernels if r.phase != "decode"):
            peaks = {r.length: r.peak_bytes for r in kernels if r.phase == phase and r.peak_bytes}
            if len(peaks) > 1:
                yield _aim(f"D={dim}, {phase}: exponent of L in peak memory, {TRITON}",
                           growth_exponent(peaks), 1.1, upper=True)  # fmt: skip


def _aim(what: str, value: float, limit: float, upper: bool) -> str:
    met = value <= limit if upper else value >= limit
    verdict = "met" if met else "not met"
    return f"* {what}: {value:.2f}, aim {'<=' if upper else '>='} {limit:g}: {verdict}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(r: Result, width: int) -> list[str]:
    left = [str(r.dim), str(r.length), r.entry.name]
    if r.status is not Status.OK:
        return left + [r.message] + [""] * (width - len(left) - 1)
    time = spread([1e3 * s for s in r.seconds])
    left += [
        f"{time.median:.3g} [{time.low:.3g}, {time.high:.3g}]",
        "" if r.entry.name == SDPA else _median(r.over_sdpa),
        "" if r.entry.name == TRITON else _median(r.over_triton),
        _number(r.peak_bytes, 2**-20, ".1f"),
    ]
    if r.phase == "decode":
        return [*left, _number(r.bandwidth, 1e-9, ".0f")]
    return [
        *left,
        _number(r.implied_over_sdpa, 1, ".3g"),
        _number(r.utilisation, 1, ".1%"),
        _number(r.iterations, 1, ".1f"),
        _number(r.residual, 1, ".1e"),
    ]


def _median(values: Sequence[float]) -> str:
    return f"{spread(values).median:.3g}" if values else ""


def _number(value: float | None, factor: float, form: str) -> str:
    return "" if value is None else format(value * factor, form)
