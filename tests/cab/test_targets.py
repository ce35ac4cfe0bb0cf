"""Classes by the place of their code, the modules of the current folder among them."""

import subprocess
import sys

import pytest

from cab.errors import RegistrationError
from cab.own_code import PACKAGES, ROOT, safe_environment, safe_python
from cab.registries import ATTENTIONS, TASKS

SOURCE = """
from cab import Attention


class Mine(Attention):
    def forward(self, q, k, v, context=None):
        return v
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, an empty one that is not on the path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(ATTENTIONS, "_classes", {})
    return tmp_path


def target(name, registry=ATTENTIONS):
    return registry.resolve(name).target


def test_a_module_of_the_current_folder_is_the_file_that_it_is(here):
    (here / "mine_here.py").write_text(SOURCE)
    assert target("mine_here:Mine") == f"{here}/mine_here.py:Mine"
    assert ATTENTIONS.resolve("mine_here:Mine") == ATTENTIONS.resolve("mine_here.py:Mine")


def test_so_is_one_that_only_the_interpreter_was_told_of(here):
    (here / "mine_here.py").write_text(SOURCE)
    sys.path.insert(0, "")
    sys.path.insert(0, str(here))
    assert target("mine_here:Mine") == f"{here}/mine_here.py:Mine"


def test_a_module_on_the_environments_path_stays_a_module(here, monkeypatch):
    (here / "mine_on_path.py").write_text(SOURCE)
    monkeypatch.setenv("PYTHONPATH", str(here))
    sys.path.insert(0, str(here))
    assert target("mine_on_path:Mine") == "mine_on_path:Mine"
    del sys.modules["mine_on_path"]


def test_a_module_in_a_package_of_the_current_folder_imports_its_neighbours(here):
    files = {
        "mypack/__init__.py": "",
        "mypack/inner/__init__.py": "",
        "mypack/inner/mine.py": "from mypack.base import Base\nfrom . import words\n\n\n"
        "class Mine(Base): ...\n",
        "mypack/inner/words.py": "",
        "mypack/base.py": SOURCE.replace("Mine", "Base"),
    }
    for name, text in files.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(text)
    assert target("mypack.inner.mine:Mine") == f"{here}/mypack/inner/mine.py:Mine"


def test_a_process_elsewhere_finds_what_was_found_here(here, tmp_path_factory):
    (here / "mine_here.py").write_text("from helper_here import WORD\n" + SOURCE)
    (here / "helper_here.py").write_text("WORD = 1\n")
    found = target("mine_here:Mine")
    code = (
        "import sys; from cab.registries import ATTENTIONS;"
        "entry = ATTENTIONS.resolve(sys.argv[1]); print(ATTENTIONS.load(entry).__name__)"
    )
    done = subprocess.run(
        safe_python("-c", code, found), env=safe_environment(), text=True, check=True,
        cwd=tmp_path_factory.mktemp("elsewhere"), stdout=subprocess.PIPE,
    )  # fmt: skip
    assert done.stdout.strip() == "Mine"


def test_the_current_folder_is_never_first_on_the_path(here):
    (here / "mine_here.py").write_text(SOURCE)
    before = list(sys.path)
    target("mine_here:Mine")
    assert sys.path[: len(before)] == before


def test_a_folder_beside_the_file_hides_none_of_our_packages(here):
    for name in PACKAGES:
        (here / name).mkdir()
    (here / "tasks/__init__.py").write_text("raise SystemExit('the wrong one')\n")
    (here / "mine.py").write_text(SOURCE)
    code = (
        "from cab.registries import ATTENTIONS, TASKS;"
        "ATTENTIONS.resolve('mine:Mine'); TASKS.load(TASKS.resolve('passkey'));"
        "ATTENTIONS.load(ATTENTIONS.resolve('softmax')); import runners.rows, dashboard"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True, cwd=here)


@pytest.mark.parametrize("name", ["attentions", "tasks", "cab"])
def test_folders_named_like_our_packages_hide_nothing(here, name):
    (here / name).mkdir()
    (here / name / "softmax.py").write_text("raise SystemExit('the wrong one')\n")
    (here / name / "__init__.py").write_text("raise SystemExit('the wrong one')\n")
    assert target("attentions.softmax:SoftmaxAttention") == "attentions.softmax:SoftmaxAttention"
    assert target("tasks.passkey.task:Passkey", TASKS) == "tasks.passkey.task:Passkey"


def test_another_module_of_that_name_is_told_of(here):
    (here / "queue.py").write_text(SOURCE)
    with pytest.raises(RegistrationError, match=r"no class Mine.*\./queue\.py:Class"):
        target("queue:Mine")


def test_in_the_suites_own_folder_modules_stay_modules(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert target("attentions.softmax:SoftmaxAttention") == "attentions.softmax:SoftmaxAttention"
    with pytest.raises(RegistrationError, match="does not import: ModuleNotFoundError"):
        target("no_such_module_at_all.inner:Mine")
