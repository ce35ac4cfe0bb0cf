"""The README, pasted by somebody who has just cloned the project: `make run`, then every command in
its order, in an environment of its own. What trains does so at scale tiny, what times is short.
"""

import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TINY = "--scale tiny --seeds 1 --device cpu --measure quality"
INSTEAD = {
    "make run": f"make run ARGS='{TINY}'",
    "make test": "make --dry-run test",  # this is one of its tests
}
FURTHER = {
    "cab run": TINY,
    "cab bench": "--lengths 32,64 --phase forward --device cpu",
}
SERVES = "cab dashboard"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands():
    """Every line of the README for a shell, as it is run here."""
    for line in "".join(blocks("bash")).splitlines():
        command = line.partition("#")[0].strip()
        if command in INSTEAD:
            yield INSTEAD[command]
        elif command:
            yield f"{command} {FURTHER.get(' '.join(command.split()[:2]), '')}".strip()


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A fresh clone of the last commit, and the environment of the shell it is pasted into."""
    home = tmp_path_factory.mktemp("home")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "CAB_", "VIRTUAL"))}
    clean |= {"ADDRESS": str(ROOT), "COLUMNS": "100", "CAB_CACHE": str(home / "cache")}
    return home, clean


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_command_works_as_it_stands(clone):
    home, environment = clone
    script = ["set -e"]
    for command in commands():
        script += [f"echo {shlex.quote('$ ' + command)}"]
        if command == SERVES:
            script += [f"timeout --signal TERM 20 {command} --headless || test $? = 124"]
        else:
            script += [command]
        if command.startswith("source"):
            script += [f"cp {home}/*.py ."]
    for block in blocks("python"):
        if name := re.match(r"# (\w+\.py)\n", block):
            (home / name[1]).write_text(block)
    shell = subprocess.Popen(
        ["bash", "-c", "\n".join(script)],
        cwd=home, env=environment, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        printed, _ = shell.communicate()
    finally:
        if shell.poll() is None:
            os.killpg(shell.pid, signal.SIGKILL)
    assert shell.returncode == 0, printed
    assert "Traceback" not in printed
