"""The guides in docs/: their files, commands and snippets, run as they stand."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cab.plugins import install

ROOT = Path(__file__).resolve().parent.parent
ADDING = (ROOT / "docs" / "adding-an-attention.md").read_text(encoding="utf-8")
USING = (ROOT / "docs" / "in-your-own-model.md").read_text(encoding="utf-8")


def blocks(language, text):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


FILES = {block.partition("\n")[0].removeprefix("# "): block for block in blocks("python", ADDING)}
COMMANDS = [shlex.split(line)[1:] for b in blocks("bash", ADDING) for line in b.splitlines()]
OF_FILES = [words for words in COMMANDS if any(".py:" in word for word in words)]
RECENCY = [words for words in COMMANDS if "recency" in words]


@pytest.fixture
def guide(tmp_path, monkeypatch):
    """Run commands in a folder with the guide's files, its package installed."""
    package = "my_package/recency.py"
    for name, source in FILES.items():
        if name != package:
            (tmp_path / name).write_text(source)
    site = tmp_path / "site"
    site.mkdir()
    install(site, "my-package", {"mine": "my_package"}, {package: FILES[package]})
    monkeypatch.setenv("PYTHONPATH", str(site))

    def run(words):
        command = [sys.executable, "-m", "cab", *words]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, check=False, timeout=280
        )

    return run


def test_the_guide_has_what_the_tests_run():
    assert set(FILES) == {"tempered.py", "fused.py", "my_package/recency.py"}
    assert {words[0] for words in OF_FILES} == {"check", "run", "bench"}
    assert {words[0] for words in RECENCY} == {"show", "check", "run"}


ON_ALL_PATTERNS = ["check", "tempered.py:Tempered"]


@pytest.mark.slow
def test_the_idea_holds_every_pattern(guide):
    assert ON_ALL_PATTERNS in OF_FILES
    done = guide(ON_ALL_PATTERNS)
    assert done.returncode == 0, done.stdout
    assert "cannot hold" not in done.stdout


def test_from_a_file_to_a_row_on_the_leaderboard(guide):
    for words in OF_FILES:
        one = ["--pattern", "causal-self"] if words == ON_ALL_PATTERNS else []
        done = guide([*words, *one])
        assert done.returncode == 0, (words, done.stdout, done.stderr)
    board = next(words for words in COMMANDS if words[0] == "leaderboard")
    done = guide(board)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\s*=?\d.*tempered", done.stdout, re.MULTILINE), done.stdout
    assert "softmax" in done.stdout


def test_an_entry_of_a_package(guide):
    for words in RECENCY:
        if words[0] == "run":
            words = [*words, "--dry-run"]
        done = guide(words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        assert "recency" in done.stdout


@pytest.mark.parametrize("block", blocks("python", USING))
def test_snippets_of_using_run(block):
    exec(compile(block, "in-your-own-model.md", "exec"), {})


@pytest.mark.parametrize("text", [ADDING, USING])
def test_links_lead_somewhere(text):
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert (ROOT / "docs" / link).exists(), link
