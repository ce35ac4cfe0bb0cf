"""An installed wheel shows a leaderboard from any folder, and leaves its own folder as it is."""

import os
import subprocess
import sys
import sysconfig
import zipfile

import pytest

from cab.result_sources import reference_store


def samples(names):
    return sorted(name for name in names if name.startswith("results/reference.files/artifacts/"))


@pytest.mark.slow
def test_a_wheel_has_the_samples_of_the_reference_results(wheel):
    beside = reference_store().beside.folder
    kept = [path for path in beside.rglob("*") if path.is_file()]
    assert kept
    assert samples(zipfile.ZipFile(wheel).namelist()) == samples(
        path.relative_to(beside.parents[1]).as_posix() for path in kept
    )


@pytest.mark.slow
def test_a_wheel_has_a_leaderboard(wheel, tmp_path):
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    zipfile.ZipFile(wheel).extractall(site)
    for path in site.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = sorted(path for path in site.rglob("*"))
    code = "from cab.cli.app import main; import cab; print(cab.__file__); main()"
    packages = sysconfig.get_paths()["purelib"]
    done = subprocess.run(
        [sys.executable, "-B", "-S", "-c", code, "leaderboard"],
        cwd=empty, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{packages}", "COLUMNS": "150"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert str(site / "cab") in done.stdout
    assert "these are the reference results" in done.stdout
    assert "reference: measured by the project on" in " ".join(done.stdout.split())
    assert "softmax" in done.stdout
    assert not list(empty.iterdir())
    assert sorted(path for path in site.rglob("*")) == before
    for path in site.rglob("*"):
        path.chmod(0o755)
