"""The command line: ``cab run``, ``bench``, ``list``, ``show``, ``check``, ``data``,
``leaderboard``, ``compare``, ``report``, ``dashboard``, ``doctor``.

Commands import what they need when they are called, so that ``cab --help`` and ``cab list`` answer
at once. Anything the user got wrong ends as one line and exit code 2.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cab.cli.data_commands import data_app
from cab.cli.list_commands import list_app
from cab.errors import CabError

app = typer.Typer(
    name="cab",
    help="Comprehensive Attention Benchmark: what an attention mechanism gives and costs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(list_app, name="list")
app.add_typer(data_app, name="data")

DEFAULT_RESULTS = Path("results/runs")
ALL = ["all"]
"""Every pattern; commands do not change it."""

Attn = Annotated[
    list[str],
    typer.Option(
        "--attn", "-a", help="Attention: an id, path/to/file.py:Class, package.module:Class or all."
    ),
]
Patterns = Annotated[
    list[str],
    typer.Option("--pattern", "-p", help="Pattern: causal-cross (or CC), ..., or all."),
]
Preset = Annotated[
    str,
    typer.Option(help="Named settings of the attention, such as cab; --option goes on top."),
]
Out = Annotated[Path, typer.Option("--out", help="Results folder (Parquet).")]
Format = Annotated[
    str, typer.Option("--format", "-f", help="table, csv, json, markdown, latex or html.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda or auto.")]


@app.callback(invoke_without_command=True)
def _version(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from cab.version import SUITE_VERSION

        print(f"cab {SUITE_VERSION}")
        raise typer.Exit


@app.command()
def run(
    attn: Attn,
    pattern: Patterns = ALL,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task", "-t", help="Task id, probes or all; default: all tasks that are no probes."
        ),
    ] = None,
    scale: Annotated[str, typer.Option(help="tiny, small, base or paper.")] = "small",
    seeds: Annotated[int, typer.Option(help="Training seeds (and processes for speed).")] = 3,
    device: Device = "auto",
    measure: Annotated[
        str, typer.Option(help="Comma-separated: quality, latency, memory.")
    ] = "quality,latency,memory",
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="name=value, an option of the attention."),
    ] = None,
    preset: Preset = "",
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder with a task's original data; default: the embedded data."),
    ] = None,
    out: Out = DEFAULT_RESULTS,
    workers: Annotated[
        int | None,
        typer.Option(help="Quality cells at a time; default: one per core, or per GPU."),
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of a quality cell on a CPU.")] = 1,
    timeout: Annotated[float, typer.Option(help="Seconds after which a cell is given up.")] = 900.0,
    executor: Annotated[
        str, typer.Option(help="Where cells run: an entry point's name.")
    ] = "local",
    replicas: Annotated[
        int, typer.Option(help="Processes that train a cell together, one per GPU.")
    ] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the cells and stop.")] = False,
) -> None:
    """Measure attentions on a pattern, beside softmax and no attention."""
    from cab.cli.run import run_command

    raise typer.Exit(
        run_command(
            attentions=attn,
            patterns=pattern,
            tasks=task or [],
            scale=scale,
            seeds=seeds,
            device=device,
            measures=[word.strip() for word in measure.split(",") if word.strip()],
            options=option or [],
            preset=preset,
            data_dir=data_dir,
            out=out,
            workers=workers,
            threads=threads,
            timeout=timeout,
            executor=executor,
            replicas=replicas,
            dry_run=dry_run,
        )
    )


@app.command()
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
        int | None, typer.Option(help="Keys in cross attention; default: as many as queries.")
    ] = None,
    phase: Annotated[
        list[str] | None,
        typer.Option(help="forward, forward_backward, decode; several or none (all)."),
    ] = None,
    batch: Annotated[int, typer.Option(help="Sequences per call.")] = 1,
    heads: Annotated[int | None, typer.Option(help="Heads; default: 4, on a GPU 8.")] = None,
    head_dim: Annotated[
        int | None, typer.Option(help="Width of a head; default: 32, on a GPU 64.")
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="bf16, fp16 or fp32; default: fp32, on a GPU bf16.")
    ] = "",
    device: Device = "auto",
    processes: Annotated[int, typer.Option(help="Processes: the unit of replication.")] = 3,
    threads: Annotated[int, typer.Option(help="Threads on a CPU; 0: one per core.")] = 0,
    seconds: Annotated[
        float | None,
        typer.Option(help="Seconds that a process may take; default: 17, on a GPU 120."),
    ] = None,
    hot: Annotated[
        bool, typer.Option("--hot", help="GPU: leave the L2 cache as the last call left it.")
    ] = False,
    cuda_graphs: Annotated[
        bool, typer.Option("--cuda-graphs", help="GPU: replay recorded calls, without launch cost.")
    ] = False,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="name=value, an option of the attention."),
    ] = None,
    preset: Preset = "",
    out: Out = Path("results/bench"),
) -> None:
    """Time a mechanism over lengths: latency, memory, arithmetic, growth, and when it pays."""
    from cab.cli.bench import bench_command

    raise typer.Exit(
        bench_command(
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
            options=option or [],
            preset=preset,
            out=out,
        )
    )


@app.command()
def show(name: Annotated[str, typer.Argument(help="Id of an attention or a task.")]) -> None:
    """Show an attention or a task: formula, paper, grades, options, complexity."""
    from cab.cli.show import show_command

    show_command(name)


@app.command()
def check(
    attn: Annotated[str, typer.Argument(help="Id, path/to/file.py:Class or module:Class.")],
    pattern: Patterns = ALL,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="name=value, an option of the attention."),
    ] = None,
    preset: Preset = "",
) -> None:
    """Hold an attention to the contract on every pattern that it claims."""
    from cab.cli.check import check_command

    raise typer.Exit(check_command(attn, pattern, option or [], preset))


@app.command()
def leaderboard(
    pattern: Patterns = ALL,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", "-t", help="Rank by these tasks alone (ids, probes or all)."),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(help="Only this scale."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Only cpu or cuda."),
    ] = None,
    metric: Annotated[
        str,
        typer.Option(
            help="What to rank by: index; bradley-terry; compositional (CAB's); a task's metric; "
            "or a cost, with what is dominated and from which length it pays: latency, "
            "train-latency, decode-latency, memory, train-memory, parameters, state, energy."
        ),
    ] = "index",
    sort: Annotated[
        str,
        typer.Option(help="Column to sort by: rank, attention, grade, index, a task, a cost, ..."),
    ] = "rank",
    grade: Annotated[
        str | None,
        typer.Option(help="Only entries of this grade (controls stay)."),
    ] = None,
    published: Annotated[
        str | None,
        typer.Option(
            help="A leaderboard of published numbers instead: cab2023, or cab2023+errata."
        ),
    ] = None,
    format: Format = "table",
    out: Out = DEFAULT_RESULTS,
) -> None:
    """Rank what the results folder holds, or what was published."""
    from cab.cli.leaderboard import leaderboard_command

    leaderboard_command(
        pattern, task or [], scale, device, metric, sort, grade, published, format, out
    )


@app.command()
def compare(
    one: Annotated[str, typer.Argument(help="An entry, as the leaderboard names it.")],
    other: Annotated[str, typer.Argument(help="The entry to compare it with.")],
    pattern: Patterns = ALL,
    scale: Annotated[str | None, typer.Option(help="Only this scale.")] = None,
    device: Annotated[str | None, typer.Option(help="Only cpu or cuda.")] = None,
    format: Format = "table",
    out: Out = DEFAULT_RESULTS,
) -> None:
    """Compare two entries: differences by task, costs, crossover, and a verdict in a sentence."""
    from cab.cli.compare import compare_command

    compare_command(one, other, pattern, scale, device, format, out)


@app.command()
def report(
    to: Annotated[Path, typer.Option("--to", help="HTML file to write.")] = Path("report.html"),
    scale: Annotated[str | None, typer.Option(help="Only this scale.")] = None,
    device: Annotated[str | None, typer.Option(help="Only cpu or cuda.")] = None,
    out: Out = DEFAULT_RESULTS,
) -> None:
    """Write one self-contained HTML page to hand around: tables, plots, method, environment."""
    from cab.cli.report import report_command

    report_command(to, scale, device, out)


@app.command()
def dashboard(
    out: Out = DEFAULT_RESULTS,
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 8501,
    headless: Annotated[bool, typer.Option(help="Do not open a browser.")] = False,
) -> None:
    """Browse the leaderboard in a browser."""
    from cab.cli.dashboard import dashboard_command

    raise typer.Exit(dashboard_command(out, port, headless))


@app.command()
def doctor() -> None:
    """Report torch, device, threads and Triton, and what is missing."""
    from cab.cli.doctor import doctor_command

    doctor_command()


# Typer carries its own copy of click in newer versions; this is the base of its error classes in
# any of them.
_ClickError: type[Exception] = next(
    base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException"
)


def main() -> None:
    """Entry point of the ``cab`` script."""
    try:
        code = app(standalone_mode=False)
    except CabError as error:
        code = _fail(str(error))
    except _ClickError as error:
        message = error.format_message()  # type: ignore[attr-defined]  # a click error has it
        # Without arguments click's "error" is the help text, which is no single line.
        help_asked = type(error).__name__.startswith("NoArgsIsHelp")
        code = 2 if help_asked else _fail(message)
        if help_asked:
            print(message)
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except BrokenPipeError:
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str) -> int:
    print(f"cab: {' '.join(message.split())}", file=sys.stderr)
    return 2
