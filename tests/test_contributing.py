"""What CONTRIBUTING.md says of adding an attention, done."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from cab.discovery import scan

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "docs" / "examples" / "decayed_linear.py"
TARGET = f"{EXAMPLE}:DecayedLinear"


def cab(*arguments, cwd):
    command = [sys.executable, "-m", "cab", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_the_quoted_code_is_that_of_the_example():
    blocks = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    assert blocks
    for block in blocks:
        assert block in EXAMPLE.read_text(encoding="utf-8")


def test_the_example_keeps_the_contract(tmp_path):
    done = cab("check", TARGET, "--seed", "0", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "decayed-linear keeps the contract on causal-self" in done.stdout
    assert "not implemented" not in done.stdout


def test_the_example_is_measured(tmp_path):
    done = cab(
        "run", "--attn", TARGET, "--pattern", "causal-self", "--scale", "tiny", "--seeds", "1",
        "--task", "associative-recall", "--measure", "quality", "--out", "results",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "decayed-linear" in done.stdout
    assert list((tmp_path / "results").rglob("*.parquet"))


def test_a_file_in_the_folder_is_an_entry_and_nothing_else_is_touched(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "attentions", tmp_path / "copied")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = {found.info.id for found in scan("copied", "register_attention")}
    shutil.copy(EXAMPLE, tmp_path / "copied")
    after = {found.info.id for found in scan("copied", "register_attention")}
    assert after - before == {"decayed-linear"}


def test_files_and_folders_that_the_guide_names_exist():
    for path in re.findall(r"\]\(([^)#]+)\)", GUIDE):
        assert (ROOT / path).exists(), path
    folders = [ROOT, ROOT / "attentions", ROOT / "tasks"]
    for path in re.findall(r"`((?:\w+/)+[\w.]*)`", GUIDE):
        found = any((folder / path).exists() for folder in folders)
        assert found or re.search(r"\b(ID|NAME|test_ID|test_NAME)", path), path
