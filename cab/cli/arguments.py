"""Options of the command line: kinds of them that refuse what they cannot take, and those that
several commands share.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cab.cli import words


def whole(flag: str, help: str, least: int = 1, most: int = 1 << 20) -> Any:
    """An option that is a whole number within limits."""
    return typer.Option(flag, parser=words.whole(flag, least, most), metavar="INTEGER", help=help)


def seconds(flag: str, help: str) -> Any:
    """An option that is a time."""
    return typer.Option(flag, parser=words.seconds(flag), metavar="SECONDS", help=help)


def size(flag: str, help: str, most: float) -> Any:
    """An option that is a positive number."""
    return typer.Option(flag, parser=words.size(flag, most), metavar="NUMBER", help=help)


def path(flag: str, help: str) -> Any:
    """An option that is a file or a folder."""
    return typer.Option(flag, parser=words.path(flag), metavar="PATH", help=help)


ALL = ["all"]
"""Every pattern; commands do not change it."""

Attn = Annotated[
    list[str],
    typer.Option(
        "--attn", "-a", help="Attention: an id, path/to/file.py:Class, package.module:Class or all."
    ),
]
OptionalAttn = Annotated[
    list[str] | None,
    typer.Option(
        "--attn", "-a", help="Attention: an id, path/to/file.py:Class, package.module:Class or all."
    ),
]
AttentionOptions = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", help="name=value, an option of the attention."),
]
Preset = Annotated[
    str,
    typer.Option(help="Named settings of the attention, such as cab; --option goes on top."),
]
Patterns = Annotated[
    list[str],
    typer.Option("--pattern", "-p", help="Pattern: causal-cross (or CC), ..., or all."),
]
Out = Annotated[Path, path("--out", "Results folder (Parquet).")]
Format = Annotated[
    str, typer.Option("--format", "-f", help="table, csv, json, markdown, latex or html.")
]
NoReference = Annotated[
    bool, typer.Option("--no-reference", help="Leave out the results that come with cab.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda or auto.")]
OnlyScale = Annotated[str | None, typer.Option("--scale", help="Only this scale.")]
OnlyDevice = Annotated[str | None, typer.Option("--device", help="Only cpu or cuda.")]
Retry = Annotated[
    str,
    typer.Option(
        help="Outcomes of earlier runs to try again: oom, timeout, invalid, diverged, "
        "unsupported, or disturbed (costs timed on a busy machine). Errors always are."
    ),
]
Executor = Annotated[str, typer.Option(help="Where cells run: an entry point's name.")]
ExecutorOptions = Annotated[
    list[str] | None,
    typer.Option(help="name=value, an option of the executor; an unknown one says which it has."),
]
Workers = Annotated[
    int | None,
    whole("--workers", "Cells at a time; default: one per core, or per GPU.", most=1024),
]
