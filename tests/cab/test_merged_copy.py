"""Stores of many small files: the merged copy changes nothing but the time."""

import os
import shutil
import time

import pytest

from cab import merged_copy
from cab.errors import StoreError
from cab.schema import Row
from cab.store import ResultStore


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(merged_copy, "SMALL", 4)
    made = ResultStore(tmp_path / "runs")
    made.prepare()
    for number in range(8):
        add(made, number)
    return made


def add(store, number):
    kind = "quality" if number % 2 else "efficiency"
    row = Row(cell=f"c{number}", kind=kind, attention="a", pattern="causal-self", value=number)
    return store.append([row, row])


def values(store, **choice):
    return sorted(store.read(["value"], **choice)["value"].to_pylist())


def copy_of(store):
    return store.beside.folder / merged_copy.FOLDER


def parts(store):
    return list(copy_of(store).glob("*.part"))


WHOLE = sorted([float(n) for n in range(8)] * 2)


def test_the_copy_holds_the_same_rows(store):
    first = store.read().sort_by("cell")
    assert len(parts(store)) == 1
    assert store.read().sort_by("cell").equals(first)
    assert values(store) == WHOLE
    assert values(store, kinds=["quality"]) == [1, 1, 3, 3, 5, 5, 7, 7]
    assert store.statuses().keys() == {f"c{n}" for n in range(8)}


def test_it_is_what_is_read(store):
    store.read()
    for path in store.files():
        state = path.stat()
        path.write_bytes(b"x" * state.st_size)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert values(store) == WHOLE


def test_new_files_count_at_once_and_join_it_in_numbers(store):
    store.read()
    for number in range(8, 11):
        add(store, number)
    assert len(values(store)) == 22
    assert len(parts(store)) == 1
    for number in range(11, 14):
        add(store, number)
    assert len(values(store)) == 28
    assert len(parts(store)) == 2
    assert len(values(store)) == 28


def test_a_file_that_is_gone_or_changed_is_not_read_from_it(store):
    store.read()
    gone, changed = store.files()[:2]
    gone.unlink()
    assert len(values(store)) == 14
    changed.write_bytes(b"nothing")
    with pytest.raises(StoreError, match=changed.name):
        store.read()


@pytest.mark.parametrize("damage", ["part", "json"])
def test_a_damaged_copy_is_not_used(store, damage):
    store.read()
    (path,) = copy_of(store).glob(f"*.{damage}")
    path.write_bytes(b"damaged")
    assert values(store) == WHOLE


def test_it_may_be_deleted(store):
    store.read()
    shutil.rmtree(copy_of(store))
    assert values(store) == WHOLE


def test_a_folder_that_cannot_be_written_is_read_file_by_file(store):
    copy_of(store).write_text("in the way")
    assert values(store) == WHOLE


def test_old_parts_of_no_use_are_removed(store):
    store.read()
    (old,) = parts(store)
    past = time.time() - 7200
    os.utime(old.with_suffix(".json"), (past, past))
    store.files()[0].unlink()
    store.read()
    assert old not in parts(store)


def test_few_files_are_read_as_they_are(tmp_path):
    store = ResultStore(tmp_path / "runs")
    store.prepare()
    add(store, 1)
    store.read()
    assert not copy_of(store).exists()


def test_a_copy_of_an_earlier_version_goes(store):
    store.read()
    shutil.copytree(copy_of(store), store.root / ".merged")
    assert values(store) == WHOLE
    store.prepare()
    assert not (store.root / ".merged").exists()
    assert values(store) == WHOLE
