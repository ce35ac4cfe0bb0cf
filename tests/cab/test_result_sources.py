"""The user's folder and the reference results, read as one; labels follow from the folder."""

import os
import stat
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest

from cab import merged_copy, result_sources
from cab.artifact import Artifact
from cab.errors import StoreError
from cab.label import Label, label_words, short_label
from cab.result_sources import ResultSources, store_at
from cab.schema import SCHEMA, Row, table_of
from cab.store import ResultStore


def row(cell, value=1.0, **fields):
    base = {"kind": "quality", "attention": "a", "pattern": "causal-self", "metric": "m"}
    return Row(cell=cell, recorded_at=datetime.now(UTC), value=value, **{**base, **fields})


@pytest.fixture
def folders(tmp_path, monkeypatch):
    own, reference = tmp_path / "own", tmp_path / "reference"
    reference.mkdir()
    own.mkdir()
    monkeypatch.setattr(result_sources, "REFERENCE", reference)
    return own, reference


def labels(table):
    return dict(zip(table["cell"].to_pylist(), table["label"].to_pylist(), strict=True))


@pytest.mark.parametrize("claimed", [*Label, None, "made up"])
@pytest.mark.parametrize("dictionaries", [True, False])
def test_a_label_is_where_a_row_lies_and_not_what_its_file_says(folders, claimed, dictionaries):
    own, reference = folders
    for folder, cell in ((own, "mine"), (reference, "theirs")):
        pq.write_table(table_of([row(cell, label=claimed)]), folder / "rows.parquet")
    table = ResultSources.at(own).read(["cell", "label"], dictionaries=dictionaries)
    assert labels(table) == {"mine": "self-reported", "theirs": "reference"}
    alone = ResultSources.at(own, reference=False).read()
    assert labels(alone) == {"mine": "self-reported"}
    assert alone.schema == SCHEMA


def test_a_file_without_a_label_has_one_too(folders):
    own, _ = folders
    pq.write_table(table_of([row("mine")]).drop_columns(["label"]), own / "rows.parquet")
    assert labels(ResultStore(own).read()) == {"mine": "self-reported"}
    assert ResultStore(own).read(["label"])["label"].to_pylist() == ["self-reported"]


def test_a_merged_copy_carries_no_label_of_its_own(folders, monkeypatch):
    own, _ = folders
    monkeypatch.setattr(merged_copy, "SMALL", 2)
    for number in range(5):
        ResultStore(own).append([row(f"c{number}", label="reference")])
    for _ in range(2):
        assert set(labels(ResultStore(own).read()).values()) == {"self-reported"}
    assert list((ResultStore(own).beside.folder / merged_copy.FOLDER).glob("*.json"))


def test_both_are_read_like_one_store(folders):
    own, reference = folders
    ResultStore(own).append([row("mine"), row("both", 2.0)])
    ResultStore(reference).append([row("theirs", kind="efficiency"), row("both", 1.0)])
    sources = ResultSources.at(own)
    assert sources.finished() == {"mine", "both", "theirs"}
    assert sources.read(kinds=["efficiency"])["cell"].to_pylist() == ["theirs"]
    assert [path.parent for path in sources.files()] == [own, reference]
    kept = sources.read(keep=lambda table: table["value"].to_numpy() > 1.5)
    assert kept["cell"].to_pylist() == ["both"]


def test_statuses_are_the_users_own_where_both_have_a_cell(folders):
    own, reference = folders
    ResultStore(own).append([row("both", status="error")])
    ResultStore(reference).append([row("both"), row("theirs")])
    sources = ResultSources.at(own)
    assert sources.statuses() == {"both": {"error"}, "theirs": {"ok"}}
    assert sources.finished() == {"theirs"}


@pytest.mark.parametrize(
    ("own_status", "reference_status", "taken"),
    [(None, "ok", True), ("ok", "ok", False), ("error", "ok", False), (None, "oom", False),
     (None, "diverged", False), (None, None, False)],
)  # fmt: skip
def test_what_comes_from_the_reference(folders, own_status, reference_status, taken):
    for folder, status in zip(folders, (own_status, reference_status), strict=True):
        if status:
            ResultStore(folder).append([row("cell", status=status)])
    own, _ = folders
    assert ResultSources.at(own).from_reference(["cell", "other"]) == ({"cell"} if taken else set())
    assert not ResultSources.at(own, reference=False).from_reference(["cell"])


def test_artifacts_are_found_in_both(folders):
    own, reference = folders
    made = [Artifact("a", "txt", "own", b"1")], [Artifact("a", "txt", "theirs", b"2")]
    ResultStore(own).attach("mine", made[0])
    ResultStore(reference).attach("theirs", made[1])
    sources = ResultSources.at(own)
    assert sources.artifacts("mine") == made[0]
    assert sources.artifacts("theirs") == made[1]
    assert sources.artifacts("none") == []
    assert [sources.has_artifacts(c) for c in ("mine", "theirs", "none")] == [True, True, False]


def test_nothing_is_written_into_the_reference(folders, tmp_path, monkeypatch):
    own, reference = folders
    monkeypatch.setattr(merged_copy, "SMALL", 2)
    for number in range(6):
        ResultStore(reference).append([row(f"c{number}")])
    before = sorted(tmp_path.rglob("reference*/**/*"))
    for sources in (ResultSources.at(own), ResultSources.at(reference)):
        assert sources.read().num_rows == 6
        assert sorted(tmp_path.rglob("reference*/**/*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_reference_is_read(folders):
    own, reference = folders
    ResultStore(reference).append([row("theirs")])
    reference.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert labels(ResultSources.at(own).read()) == {"theirs": "reference"}
    finally:
        reference.chmod(stat.S_IRWXU)


def test_the_folder_of_the_reference_is_read_once(folders):
    _, reference = folders
    ResultStore(reference).append([row("theirs")])
    sources = ResultSources.at(reference / ".." / "reference")
    assert sources.reference is None
    assert labels(sources.read()) == {"theirs": "reference"}
    assert store_at(reference).label is Label.REFERENCE


def test_a_missing_reference_is_an_empty_one(folders):
    own, reference = folders
    reference.rmdir()
    ResultStore(own).append([row("mine")])
    assert ResultSources.at(own).finished() == {"mine"}


def test_a_damaged_reference_says_what_to_do(folders):
    own, reference = folders
    (reference / "broken.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(StoreError, match=r"broken\.parquet.*--no-reference"):
        ResultSources.at(own).read()
    assert ResultSources.at(own, reference=False).read().num_rows == 0


def test_words_of_labels():
    assert label_words(["reference", None, "self-reported", "reference"]) == (
        "self-reported, reference"
    )
    assert label_words([]) == ""
    assert label_words(["strange", "published"]) == "published, strange"
    assert [short_label(w) for w in ("", "reference", "a, b")] == ["", "reference", "mixed"]


def test_the_reference_that_comes_with_the_package_is_whole_and_small():
    store = result_sources.reference_store()
    assert sum(path.stat().st_size for path in store.files()) < 12 * 2**20
    rows = store.read(["kind", "status", "device_name", "attention"]).to_pandas()
    assert {"softmax", "none", "softmax-exact"} <= set(rows["attention"])
    assert set(rows["kind"]) <= {"quality", "efficiency"}
    assert rows[rows["kind"] == "efficiency"]["device_name"].dropna().nunique() <= 1
