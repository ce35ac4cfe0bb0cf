"""``cab data``: what is embedded, under which licence, and whether data is what it should be."""

from __future__ import annotations

import subprocess
from pathlib import Path

from cab.chosen_task import data_dir_of
from cab.cli.console import bold, console, dim, styled, table, words
from cab.cli.ends import complain
from cab.errors import DataError, UnknownEntryError, UsageError
from cab.info import Scale, TaskInfo
from cab.own_code import safe_environment, safe_python
from cab.registries import TASKS
from cab.sheets.words import byte_size


def print_data_sets() -> None:
    """Names, sizes, licences and the tasks that read them."""
    from tasks.data.embedded import dataset, names

    shown = table("name", "rows", "size", "licence", "tasks", "title", right=("rows", "size"))
    for name in names():
        entry = dataset(name)
        readers = [info.id for info in TASKS.infos() if info.dataset == name]
        shown.add_row(
            name,
            str(entry.rows),
            byte_size(entry.bytes),
            entry.licence,
            ", ".join(readers),
            entry.title,
        )
    console.print(shown)
    console.print(dim("\nMore: cab data info NAME; the original data of a task: info TASK"))


def print_data_info(name: str) -> None:
    """Everything the manifest says of a data set, or the layout of a task's original data."""
    from tasks.data.embedded import dataset, names

    if name in TASKS.entries():
        _print_layout(TASKS.resolve(name).info)
        return
    if name not in names():
        raise UnknownEntryError("data set or task", name, [*names(), *TASKS.entries()])
    entry = dataset(name)
    console.print(words(bold(entry.name), f"  {entry.title}"))
    console.print(f"  {entry.description}\n")
    facts = table("", "")
    facts.show_header = False
    for label, value in (
        ("licence", entry.licence),
        ("attribution", entry.attribution),
        ("taken from", f"{entry.source.package} {entry.source.version}"),
        ("file", f"{entry.file}, {byte_size(entry.bytes)}, {entry.rows} rows"),
        ("sha256", entry.sha256),
        ("columns", ", ".join(entry.columns)),
        ("split", entry.split_rule),
        *((f"  {split}", _members(members)) for split, members in entry.splits.items()),
        *(("left out", f"{item}: {why}") for item, why in entry.left_out.items()),
        *(("note", note) for note in entry.notes),
        ("build", f"{entry.source.download} && cab data build {name} {entry.source.filename}"),
    ):
        facts.add_row(dim(label), value)
    console.print(facts)


def build_data_set(name: str, archive: Path, out: Path | None) -> int:
    """Build a data set's file anew from its source; the exit code of the build."""
    from tasks.data.embedded import dataset

    entry = dataset(name)
    if not archive.exists():
        raise UsageError(f"{archive} does not exist; `{entry.source.download}` fetches it")
    # As a program of its own: it ends with a usage error where the archive is not the one named.
    command = safe_python("-m", entry.build, str(archive))
    command += ["--out", str(out)] if out else []
    return subprocess.run(command, env=safe_environment(), check=False).returncode


def check_data(subjects: list[str], data_dir: Path | None) -> int:
    """Compare embedded files with their hashes, or a folder with a task's layout.

    The exit code is 2 where something is wrong: one line for every problem.
    """
    problems = _embedded_problems(subjects) if data_dir is None else []
    if data_dir is not None:
        if not data_dir.is_dir():
            raise UsageError(f"--data-dir {data_dir} is not a folder")
        problems = _folder_problems(subjects, data_dir)
    for problem in problems:
        complain(problem)
    return 2 if problems else 0


def _embedded_problems(wanted: list[str]) -> list[str]:
    from tasks.data.embedded import dataset, names

    problems = []
    for name in wanted or names():
        entry = dataset(name)
        try:
            entry.table()
        except DataError as error:
            problems.append(str(error))
        else:
            ok = styled("green", "ok")
            console.print(words(ok, f"  {name}  {entry.rows} rows, {entry.sha256[:16]}"))
    return problems


def _folder_problems(wanted: list[str], data_dir: Path) -> list[str]:
    problems = []
    entries = [TASKS.resolve(name) for name in wanted]
    if not entries:
        raise UsageError("name the tasks whose layout the folder should have")
    for entry in entries:
        folder = data_dir_of(entry.info, data_dir)
        if folder is None:
            raise UsageError(f"task {entry.id!r} reads no original data")
        found = TASKS.load(entry).data_problems(folder)
        problems += [f"{entry.id}: {problem}" for problem in found]
        if not found:
            console.print(words(styled("green", "ok"), f"  {entry.id}  {folder}"))
    return problems


def _print_layout(info: TaskInfo) -> None:
    console.print(words(bold(info.id), f"  {info.title}\n"))
    console.print(f"embedded data: {info.dataset}")
    if not info.data_dir:
        console.print("original data: it reads none")
        return
    console.print(f"original data (--data-dir): {info.data_dir}")
    scales = ", ".join(scale for scale in Scale if scale in info.scales)
    console.print(
        f"\nA folder that holds several tasks' data has one folder per task, named as the task.\n"
        f"Check it:  cab data check {info.id} --data-dir DIR\n"
        f"Use it:    cab run --task {info.id} --data-dir DIR --attn ...   (scales {scales})"
    )


def _members(members: tuple[str, ...]) -> str:
    if len(members) == 1:
        return members[0]
    shown = ", ".join(members[:6])
    return f"{len(members)}: {shown}" + (", ..." if len(members) > 6 else "")
