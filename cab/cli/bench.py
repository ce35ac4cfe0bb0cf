"""``cab bench``: cost of a mechanism over lengths - table, Parquet, plots with fitted lines."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from cab.cell import Cell
from cab.cli.console import console, table
from cab.cli.options import parse_device, parse_options
from cab.cli.run import execute
from cab.cli.tables import byte_size, duration
from cab.errors import UsageError
from cab.info import AttentionInfo
from cab.registries import ATTENTIONS
from cab.scoring.intervals import Interval
from cab.store import ResultStore

if TYPE_CHECKING:
    import torch

    from cab.scoring.curves import Curves
    from runners.efficiency.settings import EfficiencySettings

_DTYPES = {
    "bf16": "bfloat16",
    "bfloat16": "bfloat16",
    "fp16": "float16",
    "float16": "float16",
    "fp32": "float32",
    "float32": "float32",
}
_PHASES = {"forward": "forward", "forward_backward": "fwd + bwd", "decode": "decode"}
_BASELINES = ("softmax", "softmax-exact")


def bench_command(
    *,
    attentions: list[str],
    patterns: list[str],
    lengths: str,
    source_length: int | None,
    phases: list[str],
    batch: int,
    heads: int | None,
    head_dim: int | None,
    dtype: str,
    device: str,
    processes: int,
    threads: int,
    seconds: float | None,
    hot: bool,
    graphs: bool,
    options: list[str],
    preset: str,
    out: Path,
) -> int:
    """Measure, print and draw; the exit code is 0, 1 where a cell failed, 130 after Ctrl-C."""
    sizes = (batch, processes, heads or 1, head_dim or 1, source_length or 1)
    if min(sizes) < 1 or threads < 0 or (seconds is not None and seconds <= 0):
        raise UsageError("sizes, --processes and --seconds must be positive")
    parse_lengths(lengths or "1")
    store = ResultStore(out)
    store.files()
    store.prepare()
    given = parse_options(options)

    from runners.efficiency.plan import bench_plan, phases_of
    from runners.environment import available_cores, device_name
    from runners.executors.local import LocalExecutor
    from runners.session import missing_cells

    device = parse_device(device)
    if graphs and device != "cuda":
        raise UsageError("--cuda-graphs needs a CUDA device")
    usual = _defaults(device)
    settings = replace(
        usual,
        lengths=parse_lengths(lengths) if lengths else usual.lengths,
        batch=batch,
        heads=heads or usual.heads,
        head_dim=head_dim or usual.head_dim,
        dtype=_dtype(dtype) if dtype else usual.dtype,
        cell_seconds=seconds or usual.cell_seconds,
        phases=phases_of(phases),
        source_length=source_length,
        threads=threads or available_cores(),
        cold=not hot,
        graphs=graphs,
    )
    if settings.threads > available_cores():
        raise UsageError(f"--threads {threads}, but {available_cores()} cores may be used here")
    machine = f"{device_name(device)}, {settings.threads} threads"
    plan = bench_plan(
        attentions, patterns, settings,
        processes=processes, device=device, machine=machine, options=given, preset=preset,
    )  # fmt: skip
    todo = missing_cells(plan.cells, store)
    for note in plan.notes:
        console.print(f"[dim]{escape(note)}[/dim]")
    console.print(
        f"{len(plan.cells)} processes, {len(plan.cells) - len(todo)} in {escape(str(out))} "
        f"already, {len(todo)} to run; each takes up to {settings.cell_seconds:.0f} s ({device})",
        soft_wrap=True,
    )
    executor = LocalExecutor(timeout=3 * settings.cell_seconds + 120)
    if todo and execute(todo, store, executor) is not None:
        console.print(f"\ninterrupted: what was finished is stored in {escape(str(out))}")
        return 130
    return _show(plan.cells, settings, store)


def parse_lengths(text: str) -> tuple[int, ...]:
    """``1k..64k`` (doubling) or ``256,1k,4096``; k is 1024.

    Raises:
        UsageError: it is neither.
    """
    found: set[int] = set()
    for part in text.split(","):
        first, dots, last = part.partition("..")
        low = _length(first, text)
        if not dots:
            found.add(low)
            continue
        high = _length(last, text)
        if high < low:
            raise UsageError(f"--lengths {text!r}: {last.strip()} is less than {first.strip()}")
        while low <= high:
            found.add(low)
            low *= 2
    return tuple(sorted(found))


def _length(word: str, text: str) -> int:
    match = re.fullmatch(r"\s*(\d+)\s*([kK]?)\s*", word)
    if not match or int(match[1]) < 1:
        raise UsageError(
            f"--lengths takes 1k..64k (doubling) or a list such as 256,1k,4096, not {text!r}"
        )
    return int(match[1]) * (1024 if match[2] else 1)


def _dtype(name: str) -> torch.dtype:
    import torch

    if name.lower() not in _DTYPES:
        raise UsageError(f"unknown dtype {name!r}; choose from bf16, fp16, fp32")
    found: torch.dtype = getattr(torch, _DTYPES[name.lower()])
    return found


def _defaults(device: str) -> EfficiencySettings:
    """Three processes of these take about a minute on a CPU."""
    import torch

    from runners.efficiency.plan import BASELINES
    from runners.efficiency.settings import EfficiencySettings

    if device == "cuda":
        lengths = tuple(256 * 2**i for i in range(10))
        return EfficiencySettings(
            lengths, 1, 8, 64, torch.bfloat16, 1.0, 50, cell_seconds=120.0, baselines=BASELINES
        )
    lengths = tuple(256 * 2**i for i in range(6))
    return EfficiencySettings(
        lengths, 1, 4, 32, torch.float32, 0.5, 40, cell_seconds=17.0, baselines=BASELINES
    )


def _show(cells: list[Cell], settings: EfficiencySettings, store: ResultStore) -> int:
    from cab.cli.bench_plots import save_plots
    from cab.scoring.curves import curves_of

    keys = {cell.key for cell in cells}
    rows = store.read().to_pandas()
    rows = rows[rows["cell"].isin(keys)].sort_values("recorded_at", kind="stable")
    curves = curves_of(rows)
    for curve in curves:
        console.print(_table(curve, settings))
        if curve.noisy:
            console.print(
                f"[yellow]the machine was busy with something else during {curve.noisy} of "
                f"{curve.points} timed points[/yellow]; ratios suffer less than times"
            )
        if curve.checked:
            console.print(
                f"[dim]timed calls were held to: {', '.join(sorted(curve.checked))}[/dim]"
            )
    if curves:
        console.print("[dim]95 %: where the ratio of a repeated sweep would lie[/dim]")
        console.print(_scaling_table(curves))
        console.print(_paying_table(curves))
    ends = rows[rows["phase"].isna() & (rows["status"] != "ok")]
    for message in dict.fromkeys(ends["message"]):
        console.print(escape(str(message)), soft_wrap=True)
    written = save_plots(curves, store.root)
    _frame(curves).to_csv(store.root / "bench.csv", index=False)
    console.print(
        f"\nParquet: {escape(str(store.root))}; plots: "
        f"{escape(', '.join(path.name for path in written)) or 'none'}; table: bench.csv",
        soft_wrap=True,
    )
    failed = set(rows[rows["status"] == "error"]["cell"]) | (keys - set(rows["cell"]))
    return 1 if failed else 0


def _table(curve: Curves, settings: EfficiencySettings) -> Table:
    """Numbers by length; the interval of a ratio is that of repeats of the sweep."""
    from cab.scoring.curves import of_a_repeat

    unit = "time per token" if curve.phase == "decode" else "latency"
    columns = [unit, "/ softmax (95 %)", "/ exact", "peak", "traced", "of GEMM"]
    shown = table(
        "context" if curve.phase == "decode" else "length", *columns,
        title=f"\n{curve.attention}, {curve.pattern}, {_PHASES[curve.phase]} (batch "
        f"{settings.batch}, {settings.heads} heads of {settings.head_dim}, {_name(settings)})",
        right=("length", "context", *columns),
    )  # fmt: skip
    for length in curve.lengths():
        latency = curve.interval("latency", length)
        exact = curve.interval("latency_ratio_softmax_exact", length)
        use = curve.interval("flop_utilisation", length)
        status = curve.ended.get(length, ("-", ""))[0]
        shown.add_row(
            str(length),
            duration(latency.value) if latency.n else status,
            _ratio(of_a_repeat(curve.interval("latency_ratio", length))),
            f"{exact.value:.2f}x" if exact.n else "-",
            _bytes(curve.interval("peak_memory", length)),
            _bytes(curve.interval("traced_memory", length)),
            f"{100 * use.value:.2g} %" if use.n else "-",
        )
    return shown


def _scaling_table(curves: list[Curves]) -> Table:
    """Exponents: claimed and measured."""
    shown = table(
        "attention", "phase", "cost", "claimed", "measured", "95 %", "verdict",
        title="\nGrowth with the length (exponent)", right=("claimed", "measured", "95 %"),
    )  # fmt: skip
    for curve in curves:
        for cost, measured, claimed, said in growth_of(curve):
            shown.add_row(
                curve.attention,
                _PHASES[curve.phase],
                cost,
                "-" if claimed is None else f"{claimed:g}",
                f"{measured.value:.2f}" if measured.n else "-",
                f"{measured.low:.2f} to {measured.high:.2f}" if measured.known else "-",
                said,
            )
    return shown


def growth_of(curve: Curves) -> list[tuple[str, Interval, float | None, str]]:
    """Cost, measured exponent, claimed exponent and verdict, for time and for memory."""
    from cab.patterns import Pattern
    from cab.scoring.growth import claimed_exponent, power_law, verdict

    info = _info(curve.attention)
    causal = Pattern.parse(curve.pattern).causal
    unknown = Interval(math.nan, math.nan, math.nan, 0)
    time = None if info is None else claimed_exponent(info.time, causal)
    memory = None if info is None else claimed_exponent(info.memory, causal)
    if curve.phase == "decode":
        # A claim speaks of all tokens together.
        time = None if time is None else max(0.0, time - 1)
    law = curve.fit("latency")
    measured = unknown if law is None else law.exponent
    found = [("time", measured, time, verdict(measured, time))]
    if curve.phase == "forward":
        law = power_law(curve.medians("traced_memory"))
        measured = unknown if law is None else law.exponent
        # The output is part of the peak and grows with the length, which claims leave out.
        claim = None if memory is None else max(1.0, memory)
        found.append(("memory", measured, claim, verdict(measured, claim)))
    return found


def _paying_table(curves: list[Curves]) -> Table:
    """From which length it pays, against each baseline."""
    shown = table(
        "attention", "phase", "cost", "baseline", "pays", "CAB's fit",
        title="\nLength from which it pays (95 % interval)", right=("CAB's fit",),
    )  # fmt: skip
    for curve in curves:
        for metric, cost in (("latency", "time"), ("traced_memory", "memory")):
            for baseline in _BASELINES:
                if baseline == curve.attention:
                    continue
                found = curve.pays(metric, baseline)
                if found is None:
                    continue
                fitted = None if curve.phase == "decode" else curve.cab_length(metric, baseline)
                shown.add_row(
                    curve.attention,
                    _PHASES[curve.phase],
                    cost,
                    baseline,
                    found.words(),
                    "-" if fitted is None else _fitted(fitted),
                )
    return shown


def _fitted(length: float) -> str:
    return f"{length:,.0f}" if math.isfinite(length) and length > 0 else "not reached"


def _frame(curves: list[Curves]) -> pd.DataFrame:
    import pandas as pd

    lines = []
    for curve in curves:
        for metric, by_length in curve.samples.items():
            for length in by_length:
                found = curve.interval(metric, length)
                lines.append(
                    {
                        "attention": curve.attention, "pattern": curve.pattern,
                        "phase": curve.phase, "length": length, "metric": metric,
                        "value": found.value, "low": found.low, "high": found.high,
                        "processes": found.n,
                    }
                )  # fmt: skip
        lines += [
            {
                "attention": curve.attention, "pattern": curve.pattern, "phase": curve.phase,
                "length": length, "metric": status,
            }
            for length, (status, _) in curve.ended.items()
        ]  # fmt: skip
    return pd.DataFrame(lines)


def _info(attention: str) -> AttentionInfo | None:
    entries = ATTENTIONS.entries()
    return entries[attention].info if attention in entries else None


def _name(settings: EfficiencySettings) -> str:
    return str(settings.dtype).removeprefix("torch.")


def _ratio(interval: Interval) -> str:
    if not interval.n:
        return "-"
    value = f"{interval.value:.2f}x"
    return f"{value} ({_short(interval.low)}-{_short(interval.high)})" if interval.known else value


def _short(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 100 else f"{ratio:.2g}"


def _bytes(interval: Interval) -> str:
    return byte_size(interval.value) if interval.n else "-"


if TYPE_CHECKING:
    import pandas as pd
