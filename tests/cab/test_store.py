"""The store: whole files, any mix of schema versions, and clear words for damaged ones."""

import multiprocessing
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cab.artifact import Artifact
from cab.errors import StoreError
from cab.schema import SCHEMA, Row, Status, table_of
from cab.scoring.results import current
from cab.store import ResultStore


def row(cell="c" * 32, **fields):
    base = {"kind": "quality", "attention": "a", "pattern": "causal-self", "value": 1.5}
    return Row(cell=cell, recorded_at=datetime.now(UTC), **{**base, **fields})


def test_rows_come_back(tmp_path):
    store = ResultStore(tmp_path / "new" / "folder")
    store.prepare()
    store.append([row(samples=[1.0, 2.0], metric="nll"), row(metric="mse", seed=3)])
    table = store.read()
    assert table.schema == SCHEMA
    assert table["metric"].to_pylist() == ["nll", "mse"]
    assert table["samples"].to_pylist() == [[1.0, 2.0], []]
    assert store.finished() == {"c" * 32}


def test_row_and_schema_have_the_same_columns():
    assert list(row().as_dict()) == SCHEMA.names


OF_TABLE = {
    "task": "t", "scale": "tiny", "device": "cpu", "seed": 0, "metric": "m", "phase": "eval",
    "attention_hash": "h", "task_hash": "t", "data_hash": "d", "attention_options": "{}",
    "grade": "faithful", "higher_is_better": True,
}  # fmt: skip
ENDS = [status.value for status in Status]


@pytest.mark.parametrize("again", [[], ["error"], ["oom", "timeout"], ["invalid", "diverged"]])
@pytest.mark.parametrize("part", [[], ["ok"]], ids=["whole", "in part"])
@pytest.mark.parametrize("status", ENDS)
def test_what_is_tried_again(tmp_path, status, part, again):
    """A cell of which a part ended so is tried again like one that ended so as a whole."""
    store = ResultStore(tmp_path)
    store.append([row(status=name, run_id="r") for name in (*part, status)])
    assert bool(store.finished(again)) is (status not in again)
    assert bool(store.finished()) is (status != "error")


@pytest.mark.parametrize("first", ENDS)
@pytest.mark.parametrize("second", ENDS)
def test_an_end_without_a_number_replaces_no_number(tmp_path, first, second):
    store = ResultStore(tmp_path)
    for run, status in enumerate((first, second)):
        store.append([row(status=status, run_id=str(run), **OF_TABLE)])
    kept = first in ("ok", "invalid") and second not in ("ok", "invalid")
    expected = {first if kept else second}
    assert store.statuses() == {"c" * 32: expected}
    rows = store.read().to_pandas()
    found = current(rows, {}, installed=lambda name: ())
    assert set(found.rows["status"]) == expected


def test_older_schema_and_unknown_columns_are_read(tmp_path):
    store = ResultStore(tmp_path)
    store.append([row()])
    old = table_of([row(cell="d" * 32)]).drop_columns(["source", "threads", "samples"])
    old = old.append_column("gone", pa.array(["x"]))
    pq.write_table(old, tmp_path / "old.parquet")
    table = store.read()
    assert sorted(table["cell"].to_pylist()) == ["c" * 32, "d" * 32]
    assert table["threads"].null_count == 2


def test_temporary_files_are_ignored_and_old_ones_swept(tmp_path):
    import os

    store = ResultStore(tmp_path / "runs")
    store.prepare()
    # Beside the folder; an earlier version wrote them inside.
    for half in (store.beside.temporary("half.parquet"), store.root / ".half.parquet.tmp"):
        half.write_bytes(b"PAR1 not finished")
        assert store.read().num_rows == 0
        store.prepare()
        assert half.exists()
        os.utime(half, (0, 0))
        store.prepare()
        assert not half.exists()


def test_a_corrupt_file_is_named(tmp_path):
    store = ResultStore(tmp_path)
    path = store.append([row()])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(StoreError, match=path.name):
        store.read()


def test_unwritable_and_wrong_folders(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        ResultStore(file / "below").prepare()
    with pytest.raises(StoreError, match="not a results folder"):
        ResultStore(file).read()


def _write(folder, writer):
    store = ResultStore(folder)
    for number in range(20):
        store.append([row(cell=f"{writer:016d}{number:016d}")])


def test_concurrent_writers_lose_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write, args=(tmp_path, w)) for w in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(set(ResultStore(tmp_path).read()["cell"].to_pylist())) == 60


def test_artifacts_come_back_in_order(tmp_path):
    store = ResultStore(tmp_path)
    made = [
        Artifact("b-sample", "txt", "two", "zwölf".encode()),
        Artifact("a", "vl.json", "one", b"{}"),
    ]
    store.attach("c" * 32, made)
    assert store.artifacts("c" * 32) == made
    store.attach("c" * 32, made[:1])
    assert store.artifacts("c" * 32) == made[:1]
    assert store.artifacts("d" * 32) == []
    assert store.files() == []  # they are no results


def test_damaged_artifacts_are_named(tmp_path):
    store = ResultStore(tmp_path / "runs")
    store.attach("c" * 32, [Artifact("a", "txt", "", b"x")])
    (tmp_path / "runs.files" / "artifacts" / ("c" * 32) / "a.txt").unlink()
    with pytest.raises(StoreError, match="remove that folder"):
        store.artifacts("c" * 32)


@pytest.mark.parametrize(
    ("name", "suffix", "content"),
    [("../up", "txt", b""), ("A", "txt", b""), ("a", "exe", b""), ("a", "txt", b"x" * 300_000)],
)
def test_an_artifact_is_small_and_stays_in_its_folder(name, suffix, content):
    with pytest.raises(ValueError, match="artifact"):
        Artifact(name, suffix, "", content)
