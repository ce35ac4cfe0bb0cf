"""``cab bench`` and its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cab.cli import arguments
from cab.cli.arguments import (
    AttentionOptions,
    Attn,
    Device,
    Executor,
    ExecutorOptions,
    Out,
    Preset,
    Retry,
    path,
    whole,
)
from cab.cli.words import LONGEST_SEQUENCE, MOST_SEEDS


def bench(
    attn: Attn,
    pattern: Annotated[
        list[str],
        typer.Option("--pattern", "-p", help="Pattern: causal-self (or CS), ..., or all."),
    ],
    lengths: Annotated[
        str,
        typer.Option(
            help="1k..64k (doubling) or a list: 256,1k,4096. Default: 256..8k on a CPU, "
            "256..128k on a GPU; what does not fit is recorded as oom or timeout."
        ),
    ] = "",
    source_length: Annotated[
        int | None,
        whole(
            "--source-length",
            "Keys in cross attention; default: as many as queries.",
            most=LONGEST_SEQUENCE,
        ),
    ] = None,
    phase: Annotated[
        list[str] | None,
        typer.Option(help="forward, forward_backward, decode; several or none (all)."),
    ] = None,
    batch: Annotated[str, typer.Option(help="Sequences per call; several: 1,4.")] = "1",
    heads: Annotated[
        str, typer.Option(help="Heads, or several: 8,16; default: 4, on a GPU 8.")
    ] = "",
    head_dim: Annotated[
        str, typer.Option(help="Width of a head, or several; default: 32, on a GPU 64.")
    ] = "",
    dtype: Annotated[
        str,
        typer.Option(help="bf16, fp16 or fp32, or several; default: fp32, on a GPU bf16."),
    ] = "",
    baseline: Annotated[
        str,
        typer.Option(
            "--baseline",
            "-b",
            help="What ratios are taken to, timed in turns: an id, path/to/file.py:Name (a class, "
            "or a function of q, k, v), package.module:Name, sdpa:flash, sdpa:efficient, "
            "sdpa:math, sdpa:cudnn, or flex (FlexAttention).",
        ),
    ] = "softmax",
    compile: Annotated[
        bool,
        typer.Option("--compile", help="Also time each attention as torch.compile makes it."),
    ] = False,
    compare: Annotated[
        Path | None,
        path("--compare", "An earlier bench, a Parquet file or a folder, to compare with."),
    ] = None,
    tolerance: Annotated[
        str,
        typer.Option(help="With --compare: percent by which a point may be slower than it was."),
    ] = "5",
    device: Device = "auto",
    processes: Annotated[
        int, whole("--processes", "Processes: the unit of replication.", most=MOST_SEEDS)
    ] = 3,
    threads: Annotated[
        int, whole("--threads", "Threads on a CPU; 0: one per core.", least=0, most=1024)
    ] = 0,
    seconds: Annotated[
        float | None,
        arguments.seconds(
            "--seconds", "Seconds that a process may take; default: 17, on a GPU 120."
        ),
    ] = None,
    hot: Annotated[
        bool, typer.Option("--hot", help="GPU: leave the L2 cache as the last call left it.")
    ] = False,
    cuda_graphs: Annotated[
        bool, typer.Option("--cuda-graphs", help="GPU: replay recorded calls, without launch cost.")
    ] = False,
    option: AttentionOptions = None,
    preset: Preset = "",
    out: Out = Path("results/bench"),
    retry: Retry = "",
    executor: Executor = "local",
    executor_option: ExecutorOptions = None,
) -> None:
    """Time a mechanism over lengths: latency, memory, arithmetic, growth, and when it pays.

    Lists of sizes are crossed with each other. --attn and --baseline also
    take a bare function of q, k and v.

    Exit code: 0; 1 where a process failed, or with --compare a point is slower
    than it was, beyond the noise and by more than --tolerance; 2 for bad input.
    """
    from cab.benching.order import BenchOrder
    from cab.cli.bench import BenchChoice, bench_command
    from cab.cli.options import parse_options

    order = BenchOrder(
        attentions=attn,
        patterns=pattern,
        lengths=lengths,
        source_length=source_length,
        phases=phase or [],
        batch=batch,
        heads=heads,
        head_dim=head_dim,
        dtype=dtype,
        device=device,
        processes=processes,
        threads=threads,
        seconds=seconds,
        hot=hot,
        graphs=cuda_graphs,
        baseline=baseline,
        compiled=compile,
        options=parse_options(option or []),
        preset=preset,
    )
    choice = BenchChoice(
        out=out,
        retry=retry,
        executor=executor,
        executor_options=executor_option or [],
        compare=compare,
        tolerance=tolerance,
    )
    raise typer.Exit(bench_command(order, choice))
