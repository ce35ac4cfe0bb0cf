"""Foreign, older and damaged files in a results folder: the rest is shown, the file is named."""

import shutil

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cab import result_sources
from cab.cli.app import app
from cab.schema import SCHEMA
from cab.store import ResultStore
from tests.cli.stores import write_store

COMMANDS = (
    ("leaderboard",),
    ("leaderboard", "--metric", "bradley-terry"),
    ("leaderboard", "--metric", "compositional"),
    ("leaderboard", "--metric", "latency", "--format", "json"),
    ("compare", "lla", "softmax"),
    ("show", "lla"),
    ("report", "--to", "{}/report.html"),
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    write_store(folder)
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch, written):
    """A results folder of one good file, and no reference results."""
    monkeypatch.setattr(result_sources, "REFERENCE", tmp_path / "reference")
    return shutil.copytree(written, tmp_path / "results")


def squeezed(text):
    """Without the white space at which a narrow terminal breaks lines."""
    return "".join(text.split())


def good(folder):
    """The table of the good file, as another run of other attentions would have it."""
    table = pq.read_table(next(folder.glob("*.parquet")))
    return table.set_column(
        table.column_names.index("cell"), "cell",
        pa.array([f"other {cell}" for cell in table["cell"].to_pylist()]),
    )  # fmt: skip


def said(folder, *words):
    """What a command prints; it must not fail."""
    arguments = [word.format(folder) for word in words]
    arguments += ["--out", str(folder)]
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"}, catch_exceptions=False)
    return done.output


def without(table, name, how):
    place = table.column_names.index(name)
    if how == "absent":
        return table.remove_column(place)
    kind = table.schema.field(name).type
    if how == "null":
        return table.set_column(place, name, pa.nulls(table.num_rows, kind))
    if how == "some null":
        values = [None if n % 3 == 0 else v for n, v in enumerate(table[name].to_pylist())]
        return table.set_column(place, name, pa.array(values, kind))
    return table.set_column(place, name, pa.array([{"a": 1}] * table.num_rows))


HOWS = ("absent", "null", "some null", "another type")
NEEDED = {"cell", "kind", "attention", "pattern"}
RANKED = {"scale", "device", "seed", "task", "higher_is_better"}


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", SCHEMA.names)
def test_a_column_that_is_not_as_it_should_be(folder, name, how):
    before = ResultStore(folder).read()
    foreign = folder / "foreign.parquet"
    pq.write_table(without(good(folder), name, how), foreign)
    for dictionaries in (False, True):
        store = ResultStore(folder)
        table = store.read(dictionaries=dictionaries)
        assert table.num_rows >= before.num_rows
        spoilt = name in NEEDED or (how == "another type" and name != "label")
        assert spoilt == (table.num_rows < 2 * before.num_rows)
        assert spoilt == any(str(foreign) in line for line in store.complaints())
        if not spoilt:
            assert (name in RANKED) == any(str(foreign) in line for line in store.remarks())


@pytest.mark.parametrize("how", HOWS)
def test_every_command_reads_on(folder, how):
    table = good(folder)
    for name in SCHEMA.names:
        pq.write_table(without(table, name, how), folder / f"{name}.parquet")
    for words in COMMANDS if how in ("absent", "some null") else COMMANDS[:1]:
        shown = said(folder, *words)
        if words == ("leaderboard",):
            assert "local" in shown
            assert squeezed(str(folder / "cell.parquet")) in squeezed(shown)


def test_files_of_other_tools(folder):
    pq.write_table(pa.table({"x": [1, 2]}), folder / "other.parquet")
    pq.write_table(pa.table({}), folder / "empty.parquet")
    pd.DataFrame({"cell": ["c"]}, index=["a"]).to_parquet(folder / "index.parquet")
    for words in COMMANDS:
        shown = said(folder, *words)
        if "json" not in words and "report" not in words:
            said_of_it = "other.parquet: left out, no results: it has no cell"
            assert squeezed(said_of_it) in squeezed(shown)


def test_options_that_are_no_json(folder):
    table = good(folder)
    place = table.column_names.index("attention_options")
    odd = ("{not json", "[1, 2]", "3", '"words"')
    for number, options in enumerate((*odd, '{"a": "\\u001b[2J"}')):
        own = pa.array([options] * table.num_rows)
        changed = table.set_column(place, "attention_options", own)
        pq.write_table(changed, folder / f"odd-{number}.parquet")
    for words in COMMANDS:
        assert "\x1b" not in said(folder, *words)
    shown = said(folder, "leaderboard").replace("\n", "")  # paths wrap anywhere
    assert "lla (options unreadable)" in shown
    for number in range(len(odd)):
        assert f"odd-{number}.parquet: options that are no JSON object" in shown


def test_entries_without_a_usable_number(folder):
    frame = good(folder).to_pandas()
    frame = frame[frame["attention"] == "lla"]
    for value in (float("nan"), float("inf"), -float("inf"), 0.0, -1.0, None):
        hollow = frame.assign(attention=f"hollow {value}", value=value, cell=f"hollow {value}")
        hollow["samples"] = [[value] if value is not None else []] * len(hollow)
        pq.write_table(pa.Table.from_pandas(hollow, SCHEMA), folder / f"hollow{value}.parquet")
    for words in (*COMMANDS, ("compare", "hollow nan", "softmax")):
        said(folder, *words)
    assert "hollow nan" in said(folder, "leaderboard")


def test_text_from_files_is_shown_escaped(folder):
    frame = good(folder).to_pandas()
    for column in ("attention", "task", "message", "status", "metric", "device_name", "unit"):
        odd = frame.assign(**{column: "\x1b[31m\u202eevil\n[/x] [b, h] :smile: \x07\u2028"})
        pq.write_table(pa.Table.from_pandas(odd, SCHEMA), folder / f"{column}.parquet")
    table = ResultStore(folder).read()
    for dictionaries in (False, True):
        table = ResultStore(folder).read(dictionaries=dictionaries)
        for name in ("attention", "message"):
            assert all(w is None or w.isprintable() for w in table[name].unique().to_pylist())
    for words in COMMANDS:
        shown = said(folder, *words)
        assert all(c == "\n" or c.isprintable() for c in shown), words


def test_foreign_files_are_named_beside_a_merged_copy(folder, monkeypatch):
    monkeypatch.setattr("cab.merged_copy.SMALL", 4)
    table = good(folder)
    for number in range(6):
        pq.write_table(table.slice(number, 1), folder / f"part-{number}.parquet")
    pq.write_table(pa.table({"x": [1]}), folder / "other.parquet")
    for _ in range(2):
        store = ResultStore(folder)
        assert store.read().num_rows == table.num_rows + 6
        assert [line.partition(": ")[0] for line in store.complaints()] == [
            str(folder / "other.parquet")
        ]
