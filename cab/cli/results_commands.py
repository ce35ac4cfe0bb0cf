"""``cab results``: what to do with results that are there."""

from __future__ import annotations

from typing import Annotated

import typer

from cab.cli.arguments import Device, Out, Workers, seconds, whole
from cab.locations import DEFAULT_RESULTS

results_app = typer.Typer(
    name="results",
    help="Keep stored results: carry them over to changed code, audit them.",
    no_args_is_help=True,
)


@results_app.command()
def carry(
    out: Out = DEFAULT_RESULTS,
    device: Device = "auto",
    workers: Workers = None,
    timeout: Annotated[
        float, seconds("--timeout", "Seconds after which a replay is given up.")
    ] = 300,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be replayed.")] = False,
) -> None:
    """Carry results of older code over to today's keys, where a replay of seconds is the same."""
    from cab.cli.results import carry_command

    raise typer.Exit(carry_command(out, device, workers, timeout, dry_run))


@results_app.command()
def audit(
    rerun: Annotated[int, whole("--rerun", "Cells to measure again in full.")] = 3,
    out: Out = DEFAULT_RESULTS,
    device: Device = "auto",
    workers: Workers = None,
    seed: Annotated[
        int, whole("--seed", "Of the draw; another one draws other cells.", least=0, most=1 << 30)
    ] = 0,
    timeout: Annotated[
        float, seconds("--timeout", "Seconds after which a cell is given up.")
    ] = 900,
) -> None:
    """Measure stored cells again, drawn at random, and compare every score."""
    from cab.cli.results import audit_command

    raise typer.Exit(audit_command(out, device, workers, rerun, seed, timeout))
