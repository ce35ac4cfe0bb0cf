"""Any terminal, any text: encodings, markup, control characters, full disks and closed pipes."""

import ast
import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import cab
from cab import result_sources
from cab.cli.app import app
from cab.cli.console import bold, table, words
from cab.schema import Status
from cab.sheets.files import inert
from cab.terminal import Terminal
from cab.visible import visible
from runners.display import RunDisplay
from runners.executors.events import Ended
from runners.session import rows_of
from tests.cli.conftest import CAB
from tests.cli.stores import write_store
from tests.runners.test_session import cell as made

HOSTILE = "[/x] [b, h] [bold] :smile: \\[red] ends in \\"
ACTIVE = "\x1b[2J\x07\r\n\t\u202e\u200f\u2066\u2028\udc80\x9b"
ENCODINGS = ("ascii", "latin-1", "cp1252", "utf-8")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(result_sources, "REFERENCE", tmp_path / "reference")
    write_store(tmp_path / "results")
    return tmp_path / "results"


def hostile(folder, text):
    """Gives an attention of the folder a name, and s4d's failure a message."""
    path = next(folder.glob("*.parquet"))
    rows = pq.read_table(path)
    for column, old in (("attention", "local"), ("message", None)):
        values = [text if v == old else v for v in rows[column].to_pylist()]
        place = rows.column_names.index(column)
        rows = rows.set_column(place, column, pa.array(values, pa.string()))
    pq.write_table(rows, path)


def printed(width=200, encoding="utf-8"):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, errors="strict", newline="")
    return Terminal(file=file, width=width), raw


def test_a_string_is_text_wherever_it_is_printed():
    console, raw = printed()
    shown = table("id", HOSTILE, title=HOSTILE)
    shown.add_row(HOSTILE, bold(HOSTILE))
    console.print(HOSTILE)
    console.print(shown)
    console.print(words(HOSTILE, bold(HOSTILE)))
    console.file.flush()
    assert raw.getvalue().decode().count(HOSTILE) == 7


def test_what_a_terminal_obeys_is_escaped():
    console, raw = printed()
    shown = table("id", ACTIVE, title=ACTIVE)
    shown.add_row(ACTIVE, ACTIVE)
    for item in (ACTIVE, shown, words(ACTIVE, bold(ACTIVE))):
        console.print(item)
    console.file.flush()
    text = raw.getvalue().decode()
    assert all(c == "\n" or c.isprintable() for c in text)
    assert text.count(visible(ACTIVE)) == 2  # the cells, where a line break is an escape too


def test_visible_text_is_left_alone():
    for text in ("ordinary", "ä ± · ↑ 漢字", "no\xa0break", visible(ACTIVE)):
        assert visible(text) == text


def test_no_module_reads_strings_as_markup():
    """Only `cab.terminal` knows rich's console; nobody may bring markup back."""
    packages = ("cab", "runners", "dashboard")
    root = Path(cab.__file__).parents[1]
    for path in (path for name in packages for path in (root / name).rglob("*.py")):
        if path.name == "terminal.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            where = f"{path}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.ImportFrom) and node.module:
                assert node.module != "rich.markup", where
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                assert name not in ("Console", "from_markup", "rprint"), where
                assert not any(k.arg == "markup" and ast.unparse(k.value) != "False"
                               for k in node.keywords), where  # fmt: skip


def test_the_live_display_shows_messages_as_they_are():
    console, raw = printed()
    cell = made("[/x]")
    with RunDisplay(console, [cell], 1) as display:
        display.started(cell)
        display.handle(Ended(cell, Status.ERROR, HOSTILE + ACTIVE, [], 1.0))
    console.file.flush()
    text = raw.getvalue().decode()
    assert HOSTILE in text
    assert all(c == "\n" or c.isprintable() for c in text)


def test_messages_of_workers_are_taken_escaped():
    for status in (Status.ERROR, Status.INVALID):
        (row,) = rows_of(Ended(made("a"), status, ACTIVE, [], 1.0))
        assert row.message == visible(ACTIVE)


@pytest.mark.parametrize("text", [HOSTILE, ACTIVE[:-3] + "x", "=1+1", "\u202e[/]"])
def test_text_of_results_is_shown_as_it_is(folder, text):
    hostile(folder, text)
    for arguments in (
        ["leaderboard"],
        ["leaderboard", "--metric", "latency"],
        ["leaderboard", "--format", "markdown"],
        ["compare", visible(text), "lla"],
        ["show", "lla"],
        ["report", "--to", str(folder.parent / "r.html")],
    ):
        arguments += ["--out", str(folder)]
        done = CliRunner().invoke(app, arguments, env={"COLUMNS": "300"}, catch_exceptions=False)
        assert all(c == "\n" or c.isprintable() for c in done.output)
        if arguments[0] == "leaderboard" and "markdown" not in arguments:
            assert visible(text) in done.output
    page = (folder.parent / "r.html").read_text()
    assert all(c == "\n" or c.isprintable() for c in page)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_encoding_ends_a_command(tmp_path, folder, encoding):
    hostile(folder, "ä漢\U0001f600 ± name")
    env = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "120", "TERM": "dumb"}
    for arguments in (
        ("leaderboard", "--out", folder),
        ("leaderboard", "--out", folder, "--format", "json"),
        ("leaderboard", "--out", folder, "--format", "html"),
        ("show", "ä漢"),
        ("--help",),
    ):
        command = [*CAB, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, env=env, cwd=tmp_path, check=False)
        assert b"Traceback" not in done.stderr
        assert done.returncode == (2 if arguments[0] == "show" else 0)
        text = done.stdout.decode(encoding)
        if "json" in arguments:
            rows = [row for sheet in json.loads(text) for row in sheet["rows"]]
            names = {str(row.get("entry")) for row in rows}
            assert any(name.startswith("ä漢") for name in names)
        if "html" in arguments:
            assert "&#28450;" in text or encoding == "utf-8"


def test_a_full_disk_is_one_line(tmp_path, folder):
    for arguments in (
        ("list", "attentions"),
        ("leaderboard", "--out", folder),
        ("leaderboard", "--out", folder, "--format", "json"),
        ("--version",),
    ):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [*CAB, *map(str, arguments)], stdout=full, stderr=subprocess.PIPE, text=True,
                cwd=tmp_path, check=False,
            )  # fmt: skip
        assert done.returncode == 2
        assert done.stderr == "cab: cannot write the output: No space left on device\n"


@pytest.mark.parametrize("arguments", [("list", "attentions"), ("--help",), ("show", "lla")])
def test_a_closed_pipe_is_silent(tmp_path, arguments):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*CAB, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        check=False,
    )  # fmt: skip
    os.close(writer)
    assert done.returncode == 1
    assert done.stderr == ""


def test_closed_streams(tmp_path):
    command = f"{sys.executable} -m cab leaderboard --format json >&- 2>&-"
    done = subprocess.run(command, shell=True, cwd=tmp_path, check=False)
    assert done.returncode == 0


def test_cells_of_csv_are_inert(folder):
    for text in ("=1+1", "+1+1", "-1+cmd", "@SUM(1)", "\tx", "\rx", "＝1"):
        assert inert(text) == f"'{text}"
    for value in (-1.5, 3, None, True, "-1.5", "+3", "", "plain", "a=b"):
        assert inert(value) == value
    hostile(folder, "=cmd|' /C calc'!A0")
    arguments = ["leaderboard", "--format", "csv", "--out", str(folder)]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    rows = list(csv.reader(io.StringIO(done.output)))
    cells = [cell for row in rows for cell in row]
    assert "'=cmd|' /C calc'!A0" in cells
    assert not any(cell.startswith(("=", "@", "\t", "\r")) for cell in cells)
    negative = [cell for cell in cells if cell.startswith("-")]
    assert negative
    assert all(float(cell) < 0 for cell in negative)
