"""Finding entries: entry points without imports, files, modules, and what can go wrong."""

import subprocess
import sys
import textwrap

import pytest

import cab
from cab.errors import OptionError, RegistrationError, UnknownEntryError, UnsupportedPatternError
from cab.info import AttentionInfo, Family, Grade, Option
from cab.options import require_pattern, resolve_options
from cab.patterns import Pattern
from cab.registries import ATTENTIONS, TASKS
from cab.source_info import module_path, read_info

MINE = """
    from cab import Attention

    class Mine(Attention):
        '''The mean of the values.'''

        def forward(self, q, k, v, context=None):
            return v.mean(-2, keepdim=True).expand(*q.shape[:-1], v.shape[-1])

    class NotOne:
        pass
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(textwrap.dedent(MINE))
    return path


def test_source_record_equals_the_imported_one():
    for registry in (ATTENTIONS, TASKS):
        entries = registry.entries()
        assert entries
        for entry in entries.values():
            assert registry.load(entry).info == entry.info


def test_every_entry_is_listed_without_importing_torch():
    code = (
        "import sys, cab; ids = [i.id for i in cab.attentions()] + [t.id for t in cab.tasks()];"
        "assert 'lla' in ids and 'summarization' in ids; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_entry_point_is_broken():
    assert ATTENTIONS.broken() == []
    assert TASKS.broken() == []


def test_a_file_is_an_entry(mine):
    entry = ATTENTIONS.resolve(f"{mine}:Mine")
    assert entry.id == "mine"
    assert entry.info.title == "The mean of the values."
    assert set(entry.info.patterns) == set(Pattern)
    assert ATTENTIONS.resolve(entry.target) == entry


def test_a_module_is_an_entry():
    entry = ATTENTIONS.resolve("attentions.softmax:SoftmaxAttention")
    assert entry.id == "softmax"


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("{path}:NotOne", "subclass of cab.attention_contract.Attention"),
        ("{path}:Missing", "has no class Missing; it has Mine"),
        ("{folder}/absent.py:Mine", "does not exist"),
        ("{path}:", "neither an id"),
        ("no_such_module_at_all:Mine", "does not import: ModuleNotFoundError"),
    ],
)
def test_bad_targets_say_what_is_wrong(mine, target, complaint):
    with pytest.raises(RegistrationError, match=complaint):
        ATTENTIONS.resolve(target.format(path=mine, folder=mine.parent))


@pytest.mark.parametrize("body", ["syntax error here", "raise SystemExit(3)", "1 / 0"])
def test_a_file_that_does_not_import(tmp_path, body):
    path = tmp_path / "bad.py"
    path.write_text(body)
    with pytest.raises(RegistrationError, match="does not import"):
        ATTENTIONS.resolve(f"{path}:Mine")


def test_an_id_cannot_be_taken_twice(tmp_path):
    path = tmp_path / "thief.py"
    path.write_text(
        "from cab import Attention, AttentionInfo, Grade, Pattern, register_attention\n"
        "@register_attention(AttentionInfo(id='softmax', title='', formula='', time='', memory='',"
        " patterns={Pattern.CAUSAL_SELF: Grade.FAITHFUL}))\n"
        "class Thief(Attention): ...\n"
    )
    with pytest.raises(RegistrationError, match="already"):
        ATTENTIONS.resolve(f"{path}:Thief")


def test_unknown_ids_suggest_near_ones():
    with pytest.raises(UnknownEntryError, match="softmax"):
        ATTENTIONS.resolve("sofmax")


def test_record_that_needs_its_module_is_left_to_the_import(tmp_path):
    path = tmp_path / "late.py"
    path.write_text(
        "from elsewhere import TITLE\n\n"
        "@register_attention(AttentionInfo(id='late', title=TITLE, formula='', time='', memory='',"
        " patterns={}))\n"
        "class Late(Attention): ...\n"
    )
    assert read_info(path, "Late", "register_attention") is None


@pytest.mark.parametrize(
    ("lines", "title"),
    [
        ("TITLE = 'a'", "a"),
        ("TITLE: str = 'a'", "a"),
        ("TITLE = 'a'\nTITLE = 'b'", None),
        ("TITLE = 'a'\nTITLE += 'b'", None),
        ("TITLE = 'a'\nif DEBUG:\n    TITLE = 'b'", None),
        ("TITLE = 'a'.upper()", None),
    ],
)
def test_a_record_may_name_literal_constants_of_its_module(tmp_path, lines, title):
    path = tmp_path / "constants.py"
    path.write_text(
        f"{lines}\n\n"
        "@register_attention(AttentionInfo(id='c', title=TITLE, formula='', time='', memory='',"
        " patterns={}))\n"
        "class Constants(Attention): ...\n"
    )
    record = read_info(path, "Constants", "register_attention")
    assert (record and record.title) == title


def test_record_under_other_decorators(tmp_path):
    path = tmp_path / "stacked.py"
    path.write_text(
        "@final\n"
        "@register_attention(\n"
        "    AttentionInfo(id='s', title='t', formula='', time='', memory='', patterns={})\n"
        ")\n"
        "@other\n"
        "class Stacked(Attention): ...\n"
    )
    record = read_info(path, "Stacked", "register_attention")
    assert record == AttentionInfo(id="s", title="t", formula="", time="", memory="", patterns={})


def test_module_path_imports_nothing():
    assert module_path("attentions.lla.attention").name == "attention.py"
    assert module_path("attentions.no_such_thing") is None
    assert module_path("no_such_package.x") is None


INFO = AttentionInfo(
    id="x",
    title="",
    formula="",
    time="",
    memory="",
    patterns={Pattern.CAUSAL_SELF: Grade.FAITHFUL},
    absent={Pattern.CAUSAL_CROSS: "because"},
    options=(Option("width", 4, ""), Option("rate", 0.5, ""), Option("on", False, "")),
)


def test_options_are_cast_to_their_defaults_type():
    got = resolve_options(INFO, {"width": "8", "rate": "2", "on": "true"})
    assert got == {"width": 8, "rate": 2.0, "on": True}
    assert [type(v) for v in got.values()] == [int, float, bool]


@pytest.mark.parametrize(
    "bad",
    [
        {"widht": "1"},
        {"width": "4.5"},
        {"width": 4.5},
        {"rate": "x"},
        {"on": "maybe"},
        {"on": 1},
        {"width": True},
    ],
)
def test_bad_options(bad):
    with pytest.raises(OptionError):
        resolve_options(INFO, bad)


def test_unsupported_pattern_says_which_exist_and_why():
    with pytest.raises(UnsupportedPatternError, match=r"supports causal-self \(because\)"):
        require_pattern(INFO, Pattern.CAUSAL_CROSS)


def test_public_door_builds_a_module():
    module = cab.attention("local", pattern="NS", heads=2, head_dim=4, window=3)
    assert module.window == 3
    with pytest.raises(UnsupportedPatternError):
        cab.attention("local", pattern="CC", heads=2, head_dim=4)
    with pytest.raises(UnknownEntryError, match="pattern"):
        cab.attention("local", pattern="sideways", heads=2, head_dim=4)


def test_patterns_parse_names_and_abbreviations():
    for pattern in Pattern:
        assert (
            Pattern.parse(pattern.value) is Pattern.parse(pattern.abbreviation.lower()) is pattern
        )


def test_every_entry_names_its_family():
    assert [info.id for info in ATTENTIONS.infos() if info.family is Family.OTHER] == []


def test_who_names_no_family_is_other(mine):
    assert INFO.family is Family.OTHER
    assert ATTENTIONS.resolve(f"{mine}:Mine").info.family is Family.OTHER
