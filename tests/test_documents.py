"""What the documents say is true: snippets run, links lead somewhere, commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def cab(*words, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", "cab", *words], capture_output=True, text=True, cwd=cwd
    )


def test_the_example_attention_keeps_the_contract(tmp_path):
    (source,) = [block for block in blocks("python") if block.startswith("# mine.py")]
    (tmp_path / "mine.py").write_text(source)
    done = cab("check", "mine.py:Mean", "--pattern", "causal-cross", cwd=tmp_path)
    assert done.returncode == 0, done.stdout


def test_the_python_example_builds():
    (source,) = [block for block in blocks("python") if block.startswith("import cab")]
    scope = {}
    exec(source, scope)
    assert scope["attention"].info.id == "lla"


COMMANDS = sorted(
    {
        line.split("#")[0].strip()
        for block in blocks("bash")
        for line in block.splitlines()
        if line.startswith("cab ")
    }
)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command):
    words = command.split()[1:]
    depth = 2 if words[0] == "list" else 1
    known = cab(*words[:depth], "--help")
    assert known.returncode == 0
    for word in words:
        if word.startswith("--"):
            assert word in known.stdout


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/tasks.md"])
def test_links_lead_to_files(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    missing = [t for t in targets if not (ROOT / name).parent.joinpath(t).exists()]
    assert not missing


def test_the_task_page_is_current():
    done = subprocess.run(
        [sys.executable, "docs/build_tasks.py", "--check"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
