"""``cab list``: attentions, tasks and patterns, without importing any of them."""

from __future__ import annotations

from typing import Annotated

import typer

list_app = typer.Typer(help="List what is registered.", no_args_is_help=True)


@list_app.command("attentions")
def list_attentions(
    patterns: Annotated[
        bool,
        typer.Option("--patterns", help="The support matrix: grades in words, and why not."),
    ] = False,
    family: Annotated[
        list[str] | None,
        typer.Option("--family", "-f", help="Only those of a family (linear, low-rank, ...)."),
    ] = None,
) -> None:
    """Attentions, with a grade for every pattern they support."""
    from cab.cli.listing import attentions_of, print_attentions, print_support

    infos = attentions_of(family or [])
    if patterns:
        print_support(infos)
    else:
        print_attentions(infos)


@list_app.command("tasks")
def list_tasks() -> None:
    """Tasks, with their patterns and metrics."""
    from cab.cli.listing import print_tasks

    print_tasks()


@list_app.command("patterns")
def list_patterns() -> None:
    """The four attention patterns and what they mean."""
    from cab.cli.listing import print_patterns

    print_patterns()
