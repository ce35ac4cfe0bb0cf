"""What the documents say is true: snippets run, links lead somewhere, commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cab.result_sources import reference_store
from cab.scoring.boards import board
from cab.scoring.results import load_results
from cab.track import Setting

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language, text=README):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def cab(*words, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", "cab", *words], capture_output=True, text=True, cwd=cwd
    )


FILES = {
    name[1]: block
    for block in blocks("python")
    if (name := re.match(r"# (\w+\.py)\n", block)) is not None
}
"""Blocks that are files, by the name in their first line"""
CHECKS = [
    line.split("#")[0].split()[1:]
    for block in blocks("bash")
    for line in block.splitlines()
    if line.startswith("cab check")
]


@pytest.mark.parametrize("words", CHECKS, ids=" ".join)
def test_the_example_attentions_keep_the_contract(words, tmp_path):
    """The commands run as they stand, on the files as they stand."""
    for name, source in FILES.items():
        (tmp_path / name).write_text(source)
    done = cab(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stdout


def test_the_plain_example_says_what_it_cannot_hold(tmp_path):
    (tmp_path / "mine.py").write_text(FILES["mine.py"])
    done = cab("check", "mine.py:Mean", cwd=tmp_path)
    assert "cannot hold: causal-self" in done.stdout


@pytest.mark.parametrize(
    "pattern",
    [pytest.param("NS", marks=pytest.mark.slow), pytest.param("NC", marks=pytest.mark.slow), "CC"],
)
def test_the_example_with_a_causal_form_holds_the_others_too(pattern, tmp_path):
    (tmp_path / "gated.py").write_text(FILES["gated.py"])
    done = cab("check", "gated.py:GatedMean", "--pattern", pattern, cwd=tmp_path)
    assert done.returncode == 0, done.stdout


def test_the_python_example_builds():
    (source,) = [block for block in blocks("python") if block.startswith("import cab")]
    scope = {}
    exec(source, scope)
    assert scope["attention"].info.id == "lla"


def test_what_the_main_command_gives_is_what_the_reference_says():
    """Scores of `cab run` follow from code, data and seed: its own run gives the same."""
    track = Setting("small", "cpu").track("causal-cross")
    lla = board(load_results(reference_store()), track).standing("lla")
    ends = [lla.here.low, lla.here.high, lla.index.low, lla.index.high]
    index, *intervals = re.search(
        r"`lla` has an index of (\S+)\. .*?\((\S+) to\s+(\S+)\), .*?\((\S+) to\s+(\S+)\)",
        README,
        re.DOTALL,
    ).groups()
    assert index == f"{lla.index.value:+.3f}"
    assert intervals == [f"{end:+.3f}" for end in ends]


HYBRIDS = (ROOT / "docs" / "hybrids.md").read_text(encoding="utf-8")
COMMANDS = sorted(
    {
        line.split("#")[0].strip()
        for block in (*blocks("bash"), *blocks("bash", HYBRIDS))
        for line in block.splitlines()
        if line.startswith("cab ")
    }
)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command):
    words = command.split()[1:]
    depth = 2 if words[0] in ("list", "data", "results") else 1
    known = cab(*words[:depth], "--help")
    assert known.returncode == 0
    for word in words:
        if word.startswith("--"):
            assert word in known.stdout


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "docs/tasks.md", "docs/results.md", "docs/hybrids.md"]
)
def test_links_lead_to_files(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    missing = [t for t in targets if not (ROOT / name).parent.joinpath(t).exists()]
    assert not missing


@pytest.mark.slow  # `make check` does it
def test_the_task_page_is_current():
    done = subprocess.run(
        [sys.executable, "docs/build_tasks.py", "--check"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
