"""The code hash changes with the code, and not with its words."""

import pytest
import torch

from cab import Attention, AttentionSpec, Pattern, Task
from cab.cell import Cell
from cab.code_hash import (
    EXPERIMENT,
    EXPERIMENT_STAGES,
    MEASURING_METHODS,
    TASK_METHODS,
    TRAINING_METHODS,
    attention_hash,
    code_hash,
    reached,
)
from cab.registries import ATTENTIONS, TASKS

SOURCE = '''"""Doc."""
from helper import twice

@register_attention(AttentionInfo(id="a", title="first"))
class Mine:
    """Doc."""

    def forward(self, q):
        return twice(q)  # why
'''


@pytest.fixture
def files(tmp_path):
    (tmp_path / "mine.py").write_text(SOURCE)
    (tmp_path / "helper.py").write_text("def twice(x):\n    return 2 * x\n")
    return tmp_path


def digest(files):
    return code_hash(f"{files / 'mine.py'}:Mine", ["forward"])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Doc."""', '"""Other words."""'),
        ("  # why", ""),
        ('title="first"', 'title="second"'),
        ("    def forward", "\n\n    def forward"),
    ],
)
def test_words_do_not_matter(files, old, new):
    before = digest(files)
    (files / "mine.py").write_text(SOURCE.replace(old, new))
    assert digest(files) == before


def test_code_matters(files):
    before = digest(files)
    (files / "mine.py").write_text(SOURCE.replace("twice(q)", "twice(q) + 0"))
    assert digest(files) != before


def test_code_of_imported_neighbours_matters(files):
    before = digest(files)
    (files / "helper.py").write_text("def twice(x):\n    return x + x\n")
    assert digest(files) != before


def test_shared_code_of_the_package_is_part_of_the_hash():
    found = reached("attentions.local:LocalAttention", TRAINING_METHODS).names()
    assert {"windowed_softmax_attention", "LocalAttention.forward", "Attention.__init__"} <= found


def test_what_nothing_uses_is_not_part_of_the_hash():
    found = reached("attentions.local:LocalAttention", TRAINING_METHODS).names()
    assert not {"LocalAttention.flops", "LocalAttention.reference", "AttentionInfo"} & found
    assert (
        "LocalAttention.reference"
        in reached("attentions.local:LocalAttention", MEASURING_METHODS).names()
    )


def test_no_entry_or_task_of_the_suite_uses_code_that_cannot_be_followed():
    for registry, used in ((ATTENTIONS, MEASURING_METHODS), (TASKS, TASK_METHODS)):
        for entry in registry.entries().values():
            found = reached(entry.target, used)
            outside = {t for unit in found.units.values() for t in unit.targets
                       if isinstance(t, str)}  # fmt: skip
            drawn = {name for name in found.names() if name.endswith(".artifacts")}
            assert not drawn, f"{entry.id}: what draws samples is in the hash"
            assert not outside & {"eval", "exec", "globals", "importlib.import_module"}, entry.id
    assert not {"import_module"} & reached(EXPERIMENT, EXPERIMENT_STAGES).names()


def test_what_the_runners_use_of_tasks_and_attentions_is_what_their_hashes_follow():
    """A method that the training loop came to use would be out of the key otherwise."""
    runner = reached(EXPERIMENT, EXPERIMENT_STAGES)
    mentioned = runner.mentions
    own = {"info", "pattern", "scale", "data_dir", "spec"}  # set by the constructor
    for base, used in ((Task, TASK_METHODS), (Attention, TRAINING_METHODS)):
        public = {name for name in vars(base) if not name.startswith("_")} - own
        public -= {"train", "step"}  # of a module, of an optimiser
        assert public & mentioned <= used


PACKAGE = {
    "__init__.py": "",
    "core.py": "SCALE = 2.0\n\n\ndef unused():\n    return 1\n",
    "deep/__init__.py": "from ..core import SCALE as FACTOR\n",
    "deep/gate.py": "from . import FACTOR\n\n\ndef gate(x):\n    return x * FACTOR\n",
    "mine.py": (
        "from cab import Attention\nfrom .core import SCALE\nfrom .deep import gate as gating\n\n\n"
        "class Mine(Attention):\n"
        "    def forward(self, q, k, v, context=None):\n"
        "        return gating.gate(v) * SCALE\n"
    ),
}


@pytest.fixture(params=["module", "file"])
def package(request, tmp_path, monkeypatch):
    """A user's package, and how its class is named."""
    name = f"ours_{abs(hash(str(tmp_path)))}"
    for file, text in PACKAGE.items():
        path = tmp_path / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if request.param == "module":
        monkeypatch.syspath_prepend(str(tmp_path))
        return tmp_path / name, f"{name}.mine:Mine"
    return tmp_path / name, f"{tmp_path / name / 'mine.py'}:Mine"


@pytest.mark.parametrize(
    ("file", "old", "new", "matters"),
    [
        ("core.py", "2.0", "3.0", True),
        ("core.py", "return 1", "return 2", False),
        ("deep/gate.py", "x * FACTOR", "x + FACTOR", True),
        ("deep/__init__.py", "SCALE as FACTOR", "unused as FACTOR", True),
        ("mine.py", "* SCALE", "* SCALE  # so", False),
    ],
)
def test_relative_imports_are_followed(package, file, old, new, matters):
    folder, target = package
    before = attention_hash(target, "quality")
    path = folder / file
    path.write_text(path.read_text().replace(old, new))
    assert (attention_hash(target, "quality") != before) == matters


def test_a_file_may_import_its_neighbours_relatively(package, monkeypatch):
    monkeypatch.setattr(ATTENTIONS, "_classes", {})
    _, target = package
    cls = ATTENTIONS.load(ATTENTIONS.resolve(target))
    q = torch.ones(1, 1, 2, 2)
    assert cls(AttentionSpec(Pattern.CAUSAL_SELF, 1, 2))(q, q, q).sum() == 16


def test_a_file_that_the_code_names_is_part_of_the_hash(tmp_path):
    (tmp_path / "table.txt").write_text("1 2 3")
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from pathlib import Path\n\n\nclass Mine:\n    def forward(self, q):\n"
        "        return q * len(Path(__file__).with_name('table.txt').read_text())\n"
    )
    before = attention_hash(f"{mine}:Mine", "quality")
    (tmp_path / "table.txt").write_text("1 2 3 4")
    assert attention_hash(f"{mine}:Mine", "quality") != before


@pytest.mark.parametrize(
    "use",
    [
        "getattr(helper, 'twi' + 'ce')(q)",
        "importlib.import_module('hel' + 'per').twice(q)",
        "vars(helper)['twice'](q)",
        "eval('helper.twice(q)')",
        "TABLE['twice'](q)",
    ],
)
def test_where_a_use_is_dynamic_everything_counts_that_it_could_mean(tmp_path, use):
    helper = tmp_path / "helper.py"
    helper.write_text("def twice(x):\n    return 2 * x\n")
    mine = tmp_path / "mine.py"
    mine.write_text(
        "import importlib\n\nimport helper\n\nTABLE = {}\nTABLE.update(vars(helper))\n\n\n"
        f"class Mine:\n    def forward(self, q):\n        return {use}\n"
    )
    before = attention_hash(f"{mine}:Mine", "quality")
    helper.write_text("def twice(x):\n    return 3 * x\n")
    assert attention_hash(f"{mine}:Mine", "quality") != before


def test_a_registry_of_the_users_own_is_followed(tmp_path):
    """Nothing names the function: the decorator puts it into a table."""
    mine = tmp_path / "mine.py"
    text = (
        "class Table(dict):\n    def add(self, name):\n        def put(f):\n"
        "            self[name] = f\n            return f\n        return put\n\n\n"
        "TABLE = Table()\n\n\n@TABLE.add('relu')\ndef positive(x):\n    return x.relu()\n\n\n"
        "class Mine:\n    def forward(self, q):\n        return TABLE[self.kind](q)\n"
    )
    mine.write_text(text)
    before = attention_hash(f"{mine}:Mine", "quality")
    mine.write_text(text.replace("x.relu()", "x.relu() + 1"))
    assert attention_hash(f"{mine}:Mine", "quality") != before


def test_two_functions_of_one_name_are_told_apart(tmp_path):
    """Which of them is used counts, though both are in the closure."""
    (tmp_path / "one.py").write_text("def f(x):\n    return x\n")
    (tmp_path / "two.py").write_text("def f(x):\n    return -x\n")
    mine = tmp_path / "mine.py"
    text = (
        "import one, two\n\n\nclass Mine:\n    def forward(self, q):\n"
        "        return one.f(q) + two.f(2 * q)\n"
    )
    mine.write_text(text)
    before = attention_hash(f"{mine}:Mine", "quality")
    mine.write_text(text.replace("one.f(q) + two.f", "two.f(q) + one.f"))
    assert attention_hash(f"{mine}:Mine", "quality") != before


def cell(**fields):
    base = {
        "kind": "quality", "attention": "a", "target": "m:A", "grade": "faithful",
        "attention_hash": "1", "softmax_hash": "2", "runner_hash": "3", "pattern": "causal-self",
        "scale": "tiny", "seed": 0, "device": "cpu", "options": {"x": 1},
    }  # fmt: skip
    return Cell(**{**base, **fields})


def test_key_depends_on_content_and_not_on_location():
    assert cell().key == cell(target="elsewhere:A", data_dir="/data").key
    changed = [
        {"attention_hash": "9"}, {"seed": 1}, {"options": {"x": 2}}, {"data_hash": "d"},
        {"runner_hash": "9"}, {"scale": "small"}, {"machine": "other"}, {"softmax_hash": "8"},
    ]  # fmt: skip
    keys = {cell().key, *(cell(**fields).key for fields in changed)}
    assert len(keys) == 1 + len(changed)


def test_cell_survives_the_way_to_the_worker():
    original = cell(measures=("latency", "memory"))
    assert Cell.from_json(original.to_json()) == original


def test_a_method_with_a_computed_name_is_followed_into_other_files(tmp_path):
    (tmp_path / "kinds.py").write_text(
        "class Kinds:\n    def relu(self, x):\n        return x.relu()\n\n"
        "    def elu(self, x):\n        return x.exp()\n"
    )
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from kinds import Kinds\n\n\nclass Mine:\n    def __init__(self, kind='re' + 'lu'):\n"
        "        self.kind = kind\n\n    def forward(self, q):\n"
        "        return getattr(Kinds(), self.kind)(q)\n"
    )
    before = attention_hash(f"{mine}:Mine", "quality")
    path = tmp_path / "kinds.py"
    path.write_text(path.read_text().replace("x.relu()", "x.relu() * 2"))
    assert attention_hash(f"{mine}:Mine", "quality") != before
