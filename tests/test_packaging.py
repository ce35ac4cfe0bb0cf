"""What a wheel carries: the numbers that commands read beside the user's own."""

import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from cab import result_sources
from cab.scoring import published

ROOT = Path(__file__).resolve().parent.parent
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


@pytest.mark.parametrize(
    "folder", [published.FOLDER, result_sources.REFERENCE], ids=lambda f: f.name
)
def test_results_that_come_with_cab_are_packaged(folder):
    package = ".".join(folder.relative_to(ROOT).parts)
    assert package in SETUPTOOLS["packages"]["find"]["include"]
    files = list(folder.glob("*.parquet"))
    assert files
    for file in files:
        assert any(fnmatch(file.name, pattern) for pattern in SETUPTOOLS["package-data"][package])
