"""The code hash changes with the code, and not with its words."""

import pytest

from cab.cell import Cell
from cab.code_hash import code_hash

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
    return code_hash(f"{files / 'mine.py'}:Mine")


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
    from cab.code_hash import _reach
    from cab.source_info import module_path

    path = module_path("attentions.local")
    reached = _reach(path, "attentions.local", None)
    assert {"attentions.windows", "attentions.masks", "attentions.exact"} <= set(reached)


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
