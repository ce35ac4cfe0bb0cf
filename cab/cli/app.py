"""The command line: ``cab run``, ``bench``, ``list``, ``show``, ``check``, ``data``, ``results``,
``leaderboard``, ``compare``, ``report``, ``cite``, ``dashboard``, ``doctor``.

Commands import what they need when they are called, so that ``cab --help`` and ``cab list`` answer
at once. Anything the user got wrong ends as one line and exit code 2.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cab.cli import arguments
from cab.cli.arguments import (
    ALL,
    AttentionOptions,
    Device,
    Executor,
    ExecutorOptions,
    Format,
    NoReference,
    OnlyDevice,
    OnlyScale,
    OptionalAttn,
    Out,
    Patterns,
    Preset,
    Retry,
    path,
    whole,
)
from cab.cli.bench_commands import bench
from cab.cli.data_commands import data_app
from cab.cli.ends import exit_code_of
from cab.cli.list_commands import list_app
from cab.cli.results_commands import results_app
from cab.cli.words import MOST_SEEDS, require_words
from cab.durations import parse_time
from cab.locations import DEFAULT_RESULTS
from cab.own_code import require_own_packages
from cab.regularisers import MOST_ADVERSARIAL, parse_steps
from cab.streams import make_legible

app = typer.Typer(
    name="cab",
    help="Comprehensive Attention Benchmark: what an attention mechanism gives and costs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(list_app, name="list")
app.add_typer(data_app, name="data")
app.add_typer(results_app, name="results")


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
    attn: OptionalAttn = None,
    hybrid: Annotated[
        list[str] | None,
        typer.Option(
            "--hybrid",
            help="A different attention in each layer, as in lla:1,linear-elu:3: one layer, then "
            "three, and so on; options in parentheses, lla(solver=cg):1.",
        ),
    ] = None,
    pattern: Patterns = ALL,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            "-t",
            help="Task id, probes or all; default: all that are no probes, on the patterns where "
            "they measure attention.",
        ),
    ] = None,
    scale: Annotated[str, typer.Option(help="tiny, small, base or paper.")] = "small",
    seeds: Annotated[
        int, whole("--seeds", "Training seeds (and processes for speed).", most=MOST_SEEDS)
    ] = 3,
    device: Device = "auto",
    measure: Annotated[
        str, typer.Option(help="Comma-separated: quality, latency, memory.")
    ] = "quality,latency,memory",
    option: AttentionOptions = None,
    preset: Preset = "",
    conv: Annotated[
        int | None,
        whole(
            "--conv",
            "Width of a short convolution before the candidates' q, k and v, as in 4; entries of "
            "their own, such as lla@conv4.",
            most=64,
        ),
    ] = None,
    adversarial: Annotated[
        float | None,
        arguments.size(
            "--adversarial",
            "Train against queries disturbed by this share of their length; an entry of its own.",
            MOST_ADVERSARIAL,
        ),
    ] = None,
    steps: Annotated[
        float,
        typer.Option(
            "--steps",
            parser=parse_steps,
            metavar="MULTIPLE",
            help="Train all for a multiple of the recipe's steps, as in 4x or 0.5x; such results "
            "stand on no leaderboard.",
        ),
    ] = 1.0,
    data_dir: Annotated[
        Path | None,
        path("--data-dir", "Folder with a task's original data; default: the embedded data."),
    ] = None,
    out: Out = DEFAULT_RESULTS,
    workers: Annotated[
        int | None,
        whole(
            "--workers", "Quality cells at a time; default: one per core, or per GPU.", most=1024
        ),
    ] = None,
    threads: Annotated[
        int | None, whole("--threads", "Threads of a quality cell on a CPU; default: 1.", most=1024)
    ] = None,
    timeout: Annotated[
        float | None,
        arguments.seconds("--timeout", "Seconds after which a cell is given up; default: 900."),
    ] = None,
    replicas: Annotated[
        int | None,
        whole(
            "--replicas",
            "Processes that train a cell together, one per GPU; default: 1.",
            most=1024,
        ),
    ] = None,
    time_budget: Annotated[
        float | None,
        typer.Option(
            "--time-budget",
            parser=parse_time,
            metavar="TIME",
            help="Begin no cell that would end later than this (4m30s, 2h): of every task the "
            "first seed, then the costs, then the next seed.",
        ),
    ] = None,
    retry: Retry = "",
    executor: Executor = "local",
    executor_option: ExecutorOptions = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the cells and stop.")] = False,
    no_reference: NoReference = False,
) -> None:
    """Measure attentions on a pattern, beside softmax and no attention."""
    from cab.cli.run import run_command

    raise typer.Exit(
        run_command(
            attentions=attn or [],
            hybrids=hybrid or [],
            conv=conv or 0,
            patterns=pattern,
            tasks=task or [],
            scale=scale,
            seeds=seeds,
            device=device,
            measures=[word.strip() for word in measure.split(",") if word.strip()],
            options=option or [],
            preset=preset,
            adversarial=adversarial or 0.0,
            steps=steps,
            data_dir=data_dir,
            out=out,
            time_budget=time_budget,
            retry=retry,
            executor=executor,
            executor_options=executor_option or [],
            executor_flags={
                "workers": workers,
                "threads": threads,
                "timeout": timeout,
                "replicas": replicas,
            },
            dry_run=dry_run,
            reference=not no_reference,
        )
    )


app.command()(bench)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Id of an attention or a task.")],
    out: Out = DEFAULT_RESULTS,
    no_reference: NoReference = False,
) -> None:
    """Show an attention or a task: formula, paper, grades, options, and what was measured of it."""
    from cab.cli.show import show_command

    show_command(name, out, not no_reference)


@app.command()
def check(
    attn: Annotated[str, typer.Argument(help="Id, path/to/file.py:Class or module:Class.")],
    pattern: Patterns = ALL,
    option: AttentionOptions = None,
    preset: Preset = "",
    seed: Annotated[
        int | None,
        whole(
            "--seed",
            "Of the conditions drawn at random; others in every run without it.",
            least=0,
            most=1 << 30,
        ),
    ] = None,
) -> None:
    """Hold an attention to the contract on every pattern that it claims."""
    from cab.cli.check import check_command

    raise typer.Exit(check_command(attn, pattern, option or [], preset, seed))


@app.command()
def leaderboard(
    pattern: Patterns = ALL,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", "-t", help="Rank by these tasks alone (ids, probes or all)."),
    ] = None,
    scale: OnlyScale = None,
    device: OnlyDevice = None,
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
        str | None, typer.Option(help="Only entries of this grade (controls stay).")
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(help="Only entries of this family, such as linear (controls stay)."),
    ] = None,
    published: Annotated[
        str | None,
        typer.Option(
            help="A leaderboard of published numbers instead: cab2023, or cab2023+errata."
        ),
    ] = None,
    details: Annotated[
        bool,
        typer.Option(
            "--details",
            help="What each task tells, who beats whom, and the smallest difference to be seen.",
        ),
    ] = False,
    format: Format = "table",
    out: Out = DEFAULT_RESULTS,
    no_reference: NoReference = False,
) -> None:
    """Rank what the results folder holds, or what was published."""
    from cab.cli.leaderboard import leaderboard_command

    leaderboard_command(
        pattern, task or [], scale, device, metric, sort, grade, family, published, format, out,
        not no_reference, details,
    )  # fmt: skip


@app.command()
def compare(
    one: Annotated[str, typer.Argument(help="An entry, as the leaderboard names it.")],
    other: Annotated[str, typer.Argument(help="The entry to compare it with.")],
    pattern: Patterns = ALL,
    scale: OnlyScale = None,
    device: OnlyDevice = None,
    format: Format = "table",
    out: Out = DEFAULT_RESULTS,
    no_reference: NoReference = False,
) -> None:
    """Compare two entries: differences by task, costs, crossover, and a verdict in a sentence."""
    from cab.cli.compare import compare_command

    compare_command(one, other, pattern, scale, device, format, out, not no_reference)


@app.command()
def report(
    to: Annotated[Path, path("--to", "HTML file to write.")] = Path("report.html"),
    figures: Annotated[
        Path | None, path("--figures", "Folder to write its figures to, as SVG and PDF.")
    ] = None,
    scale: OnlyScale = None,
    device: OnlyDevice = None,
    out: Out = DEFAULT_RESULTS,
    no_reference: NoReference = False,
) -> None:
    """Write one self-contained HTML page to hand around: tables, plots, method, environment."""
    from cab.cli.report import report_command

    report_command(to, scale, device, out, not no_reference, figures)


@app.command()
def cite(
    names: Annotated[
        list[str] | None, typer.Argument(help="Ids of attentions, tasks and data sets.")
    ] = None,
    used: Annotated[bool, typer.Option("--used", help="Everything that the results name.")] = False,
    out: Out = DEFAULT_RESULTS,
    no_reference: NoReference = False,
) -> None:
    """Print BibTeX of the suite, and of what is named or was used."""
    from cab.cli.cite import cite_command

    cite_command(names or [], used, out, not no_reference)


@app.command()
def dashboard(
    out: Out = DEFAULT_RESULTS,
    port: Annotated[int, whole("--port", "Port on this machine.", most=65535)] = 8501,
    headless: Annotated[bool, typer.Option(help="Do not open a browser.")] = False,
    no_reference: NoReference = False,
) -> None:
    """Browse the leaderboard in a browser."""
    from cab.cli.dashboard import dashboard_command

    raise typer.Exit(dashboard_command(out, port, headless, not no_reference))


@app.command()
def doctor() -> None:
    """Report torch, device, threads and Triton, and what is missing."""
    from cab.cli.doctor import doctor_command

    doctor_command()


def main() -> None:
    """Entry point of the ``cab`` script."""
    make_legible()
    sys.exit(exit_code_of(_checked))


def _checked() -> object:
    require_own_packages()
    require_words(sys.argv[1:])
    return app(standalone_mode=False)
