import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("cab", "attentions", "tasks", "runners", "dashboard", "results", "pyproject.toml",
         "README.md", "LICENSE")  # fmt: skip


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """A wheel of this checkout."""
    source, made = (tmp_path_factory.mktemp(name) for name in ("source", "made"))
    for part in PARTS:  # a build leaves files beside its source
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, source / part)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", str(made)]
    subprocess.run([*build, str(source)], check=True)
    [found] = made.glob("*.whl")
    return found
