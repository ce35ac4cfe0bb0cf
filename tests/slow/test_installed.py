"""A wheel in an environment of its own, used from a folder that holds `tasks/`, `results/` and
`runners/` of the user's: `make smoke-wheel`.
"""

import os
import subprocess
import sys
import sysconfig
import venv

import pytest

pytestmark = pytest.mark.slow

NAMES = ("attentions", "tasks", "runners", "results", "dashboard")
CELL = (
    "--pattern", "causal-self", "--task", "test-time-regression", "--scale", "tiny",
    "--seeds", "1", "--measure", "quality", "--device", "cpu",
)  # fmt: skip
CANDIDATE = """
from attentions.softmax import SoftmaxAttention


class HalfTemperature(SoftmaxAttention):
    info = None

    def forward(self, q, k, v, context=None):
        return super().forward(2 * q, k, v, context)

    def reference(self, q, k, v, context=None):
        return super().reference(2 * q, k, v, context)
"""
SCRIPT = """
import torch
import cab

module = cab.attention("lla", pattern="causal-self", heads=2, head_dim=8)
q = torch.randn(1, 2, 5, 8)
assert module(q, q, q).shape == q.shape
assert cab.__file__.startswith(SITE), cab.__file__
assert len(cab.tasks()) > 20
print("works")
"""


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """An environment that holds the wheel alone, and sees what it depends on where that is."""
    root = tmp_path_factory.mktemp("environment")
    venv.create(root, symlinks=True)
    paths = {"base": str(root), "platbase": str(root)}
    site = sysconfig.get_path("purelib", "venv", paths)
    pip = [sys.executable, "-m", "pip", "--python", str(root / "bin" / "python")]
    install = ["install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([*pip, *install], check=True)
    with open(os.path.join(site, "dependencies.pth"), "w") as file:
        file.write(sysconfig.get_path("purelib") + "\n")
    return root / "bin", site


@pytest.fixture(scope="module", params=["packages", "modules"])
def crowded(request, tmp_path_factory):
    """A folder that has folders, or files, of the names of the suite's packages."""
    folder = tmp_path_factory.mktemp("crowded")
    for name in NAMES:
        path = (
            folder / name / "__init__.py" if request.param == "packages" else folder / f"{name}.py"
        )
        path.parent.mkdir(exist_ok=True)
        path.write_text("raise ImportError('not the suite')\n")
    (folder / "own.py").write_text(CANDIDATE)
    return folder


@pytest.fixture
def call(installed, crowded):
    """Run a program of the environment in the crowded folder; gives what it printed."""
    programs, _ = installed
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    clean |= {"COLUMNS": "150", "TERM": "dumb", "CAB_CACHE": str(crowded / ".cache")}

    def run(program, *words):
        done = subprocess.run(
            [programs / program, *words], cwd=crowded, env=clean, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_what_there_is(call):
    assert "linear-elu" in call("cab", "list", "attentions")
    assert "test-time-regression" in call("cab", "list", "tasks")
    assert "reference" in call("cab", "leaderboard", "--scale", "small")


@pytest.mark.parametrize("name", ["linear-elu", "own.py:HalfTemperature"])
def test_a_cell(call, name):
    out = f"store-{name.partition('.')[0]}"
    printed = call("cab", "run", "--attn", name, *CELL, "--out", out, "--no-reference")
    assert "3 to run" in printed
    assert "mse" in printed
    assert "3 in" in call("cab", "run", "--attn", name, *CELL, "--out", out, "--no-reference")


def test_a_script(call, installed, crowded):
    (crowded / "mine.py").write_text(f"SITE = {installed[1]!r}\n{SCRIPT}")
    assert call("python", "mine.py") == "works\n"
