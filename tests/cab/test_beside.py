"""Nothing but rows lies in a results folder, so that every reader of Parquet folders reads it; what
earlier versions have left inside is read, and moved beside it.
"""

import shutil

import pandas as pd
import pyarrow.dataset as dataset
import pyarrow.parquet as pq
import pytest

from cab import merged_copy
from cab.artifact import Artifact
from cab.errors import StoreError
from cab.result_sources import REFERENCE, reference_store
from cab.schema import Row
from cab.store import ResultStore

ONE, TWO = "1" * 32, "2" * 32


def add(store, count=1):
    for number in range(count):
        store.append(
            [Row(cell=f"c{number}", kind="quality", attention="a", pattern="causal-self", value=1)]
        )


def made(text=b"text"):
    return [Artifact("a", "txt", "one", text)]


def inside(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def with_pandas(folder):
    return len(pd.read_parquet(folder))


def with_arrow(folder):
    assert pq.read_table(folder).num_rows == dataset.dataset(folder).count_rows()
    return dataset.dataset(folder).count_rows()


def with_duckdb(folder):
    duckdb = pytest.importorskip("duckdb")
    counts = {
        duckdb.connect().execute(f"select count(*) from '{folder}/{files}'").fetchone()[0]
        for files in ("*.parquet", "**/*.parquet")
    }
    assert len(counts) == 1
    return counts.pop()


def with_polars(folder):
    polars = pytest.importorskip("polars")
    assert polars.scan_parquet(folder).select("value").collect().height == len(
        polars.read_parquet(folder)
    )
    return len(polars.read_parquet(folder))


@pytest.mark.parametrize("read", [with_pandas, with_arrow, with_duckdb, with_polars])
@pytest.mark.parametrize("old", [False, True])
def test_standard_readers_read_the_folder(tmp_path, monkeypatch, read, old):
    monkeypatch.setattr(merged_copy, "SMALL", 2)
    folder = tmp_path / "runs"
    store = ResultStore(folder)
    add(store, 5)
    store.attach(ONE, made())
    (store.drawings() / "bench.csv").write_text("a,b\n")
    assert store.read().num_rows == 5
    assert list((store.beside.folder / merged_copy.FOLDER).iterdir())
    if old:
        for name, was in (("artifacts", "_artifacts"), ("drawn", "_drawn"), ("merged", ".merged")):
            shutil.move(store.beside.folder / name, folder / was)
        part = next((folder / ".merged").glob("*.part"))
        part.rename(part.with_suffix(".parquet"))
        store = ResultStore(folder)
        store.prepare()
    assert all(name.endswith(".parquet") for name in inside(folder))
    assert read(folder) == 5
    assert store.artifacts(ONE) == made()
    assert (store.drawings() / "bench.csv").read_text() == "a,b\n"


@pytest.mark.parametrize("read", [with_pandas, with_arrow, with_duckdb, with_polars])
def test_standard_readers_read_the_reference_results(read):
    assert read(REFERENCE) == reference_store().read(["cell"]).num_rows


def test_the_reference_results_have_their_samples():
    store = reference_store()
    cells = [path.name for path in (store.beside.folder / "artifacts").iterdir()]
    assert cells
    assert all(store.artifacts(cell) for cell in cells)


@pytest.mark.parametrize("was", ["_artifacts", "artifacts"])
def test_artifacts_of_an_earlier_version_are_read_and_moved(tmp_path, was):
    folder = tmp_path / "runs"
    store = ResultStore(folder)
    for cell in (ONE, TWO):
        store.attach(cell, made())
    shutil.move(store.beside.folder / "artifacts", folder / was)
    assert store.artifacts(ONE) == made()
    store.attach(TWO, made(b"newer"))
    assert store.artifacts(TWO) == made(b"newer")
    assert len(store.made.files([ONE, TWO])) == 4
    store.prepare()
    assert inside(folder) == []
    assert store.artifacts(ONE) == made()
    assert store.artifacts(TWO) == made(b"newer")
    store.made.keep_only([ONE])
    assert not store.has_artifacts(TWO)


def test_half_of_a_set_replaces_none(tmp_path):
    store = ResultStore(tmp_path / "runs")
    store.attach(ONE, made())
    shutil.move(store.beside.folder / "artifacts", store.root / "_artifacts")
    half = store.beside.writing("artifacts") / ONE
    half.mkdir()
    (half / "a.txt").write_bytes(b"without an index")
    assert store.artifacts(ONE) == made()
    store.prepare()
    assert store.artifacts(ONE) == made()
    assert inside(store.root) == []


def test_a_store_whose_folder_is_a_link_has_one_place(tmp_path):
    disk = tmp_path / "disk" / "runs"
    disk.mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(disk)
    ResultStore(link).attach(ONE, made())
    assert ResultStore(disk).artifacts(ONE) == made()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "link"]


def test_where_nothing_can_lie_beside_it_lies_inside_and_that_is_said(tmp_path):
    (tmp_path / "runs.files").write_text("in the way")
    store = ResultStore(tmp_path / "runs")
    store.prepare()
    add(store)
    store.attach(ONE, made())
    assert store.artifacts(ONE) == made()
    assert "runs.files" in store.beside.note()
    assert with_pandas(store.root) == with_arrow(store.root) == 1
    assert (tmp_path / "runs.files").read_text() == "in the way"
    # Later it can.
    (tmp_path / "runs.files").unlink()
    store = ResultStore(tmp_path / "runs")
    store.prepare()
    assert store.beside.note() is None
    assert store.artifacts(ONE) == made()
    assert all(name.endswith(".parquet") for name in inside(store.root))


def test_a_name_that_is_too_long_with_its_suffix(tmp_path):
    store = ResultStore(tmp_path / ("x" * 252))
    store.prepare()
    add(store)
    store.attach(ONE, made())
    assert store.artifacts(ONE) == made()
    assert store.read().num_rows == 1


@pytest.mark.parametrize("cell", ["..", "../other", "/etc", "", ".", "a/b", "x\x00", "a\nb"])
def test_a_cell_that_a_file_has_made_up_leads_nowhere(tmp_path, cell):
    store = ResultStore(tmp_path / "runs")
    elsewhere = ResultStore(tmp_path / "other")
    elsewhere.attach("other", made())
    for place in (tmp_path / "runs.files", tmp_path / "runs.files" / "artifacts"):
        place.mkdir(exist_ok=True)
        (place / "index.json").write_text("[]")
    assert not store.has_artifacts(cell)
    assert store.artifacts(cell) == []
    assert store.made.files([cell]) == []
    with pytest.raises(StoreError, match="key"):
        store.attach(cell, made())


def test_an_index_names_files_of_its_own_folder_alone(tmp_path):
    store = ResultStore(tmp_path / "runs")
    store.attach(ONE, made())
    (tmp_path / "secret.txt").write_text("secret")
    index = store.beside.folder / "artifacts" / ONE / "index.json"
    index.write_text('[{"file": "../../../secret.txt", "caption": ""}]')
    with pytest.raises(StoreError, match="damaged"):
        store.artifacts(ONE)
