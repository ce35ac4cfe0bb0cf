"""Tables of what was measured, and the targets beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from rich.table import Table

from benchmarks.lla.collected import Collected, Point
from benchmarks.lla.mechanisms import DIFFERENCES, DIM, EINSUM, HEADS, MECHANISMS, OURS
from benchmarks.memory import growth_exponent
from benchmarks.printing import median_and_quartiles, plain_table
from benchmarks.timing import paired, spread

TARGET_LENGTH = 4096


class Target(NamedTuple):
    """What the code aims at, beside what was measured; None where it was not."""

    what: str
    aim: float
    upper: bool
    """Whether the aim is the most that the number may be, not the least."""
    measured: float | None
    where: str

    @property
    def verdict(self) -> str:
        """Of this run, on this machine."""
        if self.measured is None:
            return "not measured"
        met = self.measured <= self.aim if self.upper else self.measured >= self.aim
        return "met" if met else "not met"


def tables(collected: Collected) -> Iterator[Table]:
    """Every table that there is something for."""
    for phase in dict.fromkeys(point.phase for point in collected.points):
        yield _phase_table([p for p in collected.points if p.phase == phase], phase)
    if collected.points:
        yield _target_table(targets(collected.points))
    if collected.crossovers:
        yield _crossover_table(collected)
    if collected.decodings:
        yield _decode_table(collected)


def targets(points: list[Point]) -> list[Target]:
    """All targets of the CPU comparison."""
    forward = {p.length: p for p in points if p.phase == "forward"}
    training = {p.length: p for p in points if p.phase == "forward_backward"}
    here = TARGET_LENGTH
    has_b = max((n for n, p in forward.items() if DIFFERENCES in p.seconds), default=here)
    at, at_b = f"L={here}", f"L={has_b}, the longest tried"
    peaks = {n: float(p.peaks[OURS]) for n, p in training.items() if OURS in p.peaks}
    exponent = growth_exponent(peaks) if len(peaks) > 1 else None
    span = f"L={min(peaks)}..{max(peaks)}" if peaks else ""
    return [
        Target("forward: time / GEMM-ideal", 1.8, True, _ideal(forward.get(here)), at),
        Target("forward: (a) / ours", 4, False, _slower(forward.get(here), EINSUM), at),
        Target("forward: (b) / ours", 15, False, _slower(forward.get(has_b), DIFFERENCES), at_b),
        Target("forward+backward: (a) / ours", 4, False, _slower(training.get(here), EINSUM), at),
        Target("training memory: (a) / ours", 8, False, _larger(training.get(here), EINSUM), at),
        Target("training memory: exponent of L", 1.1, True, exponent, span),
    ]


def _ideal(point: Point | None) -> float | None:
    return (
        None if point is None else spread(paired(point.seconds[OURS], point.ideal_seconds)).median
    )


def _slower(point: Point | None, name: str) -> float | None:
    if point is None or name not in point.seconds:
        return None
    return spread(paired(point.seconds[name], point.seconds[OURS])).median


def _larger(point: Point | None, name: str) -> float | None:
    if point is None or name not in point.peaks:
        return None
    return point.peaks[name] / point.peaks[OURS]


def _phase_table(points: list[Point], phase: str) -> Table:
    title = f"{phase}, causal, H={HEADS}, D={DIM}, float32; medians, ratios by round [quartiles]"
    table = plain_table(
        title, "L", "mechanism", "rounds", "time s", "time / ours", "time / GEMM-ideal",
        "peak MiB", "peak / ours",
    )  # fmt: skip
    for point in sorted(points, key=lambda p: p.length):
        for name, mechanism in MECHANISMS.items():
            table.add_row(str(point.length), mechanism.title, *_cells(point, name))
        rate = spread([r * 1e-9 for r in point.gemm_rates])
        table.add_row("", "GFLOP/s of a matrix product", "", "", median_and_quartiles(rate))
        others = "" if point.others_cores is None else f"{point.others_cores:.2f}"
        table.add_row("", "cores that others kept busy", "", "", others, end_section=True)
    return table


def _cells(point: Point, name: str) -> list[str]:
    if name not in point.seconds:
        return ["", "", point.skipped.get(name, "")]
    seconds, ours = point.seconds[name], point.seconds[OURS]
    ideal = paired(seconds, point.ideal_seconds)
    peak = point.peaks[name]
    return [
        str(len(seconds)),
        f"{spread(seconds).median:.3g}",
        median_and_quartiles(spread(paired(seconds, ours))),
        median_and_quartiles(spread(ideal)) if name == OURS and point.phase == "forward" else "",
        f"{peak / 2**20:.1f}",
        f"{peak / max(1, point.peaks[OURS]):.2f}",
    ]


def _target_table(rows: list[Target]) -> Table:
    table = plain_table("targets, as measured in this run", "target", "aim", "measured", "", "at")
    for row in rows:
        aim = f"{'<=' if row.upper else '>='} {row.aim:g}"
        measured = "" if row.measured is None else f"{row.measured:.2f}"
        table.add_row(row.what, aim, measured, row.verdict, row.where)
    return table


def _crossover_table(collected: Collected) -> Table:
    table = plain_table(
        "solvers of the torch path, forward, causal, L=2048, H=1, randn",
        "D", "ridge", "cholesky s", "cg s", "cg / cholesky", "products with C", "residual",
    )  # fmt: skip
    for c in collected.crossovers:
        exact, iterative = c.seconds["cholesky"], c.seconds["cg"]
        ratio = median_and_quartiles(spread(paired(iterative, exact)))
        table.add_row(
            str(c.dim), f"{c.ridge:g}", f"{spread(exact).median:.3g}",
            f"{spread(iterative).median:.3g}", ratio, f"{c.products:.1f}", f"{c.residual:.1e}",
        )  # fmt: skip
    return table


def _decode_table(collected: Collected) -> Table:
    table = plain_table(
        "one decode step, H=4, ridge 1", "D", "L", "one pass ms", "parallel form ms",
        "parallel / one pass",
    )  # fmt: skip
    for d in collected.decodings:
        one_pass, parallel = d.seconds.values()
        table.add_row(
            str(d.dim), str(d.length), _milliseconds(one_pass), _milliseconds(parallel),
            median_and_quartiles(spread(paired(parallel, one_pass))),
        )  # fmt: skip
    return table


def _milliseconds(seconds: list[float]) -> str:
    return f"{1e3 * spread(seconds).median:.3g}"
