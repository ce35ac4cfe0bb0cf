"""Entry points that name a package: every decorated class below it is an entry, from source."""

import ast
import compileall
import subprocess
import sys
import time

import pytest

from cab.discovery import Found, scan
from cab.errors import RegistrationError
from cab.own_code import ROOT
from cab.registries import ATTENTIONS
from tests.cab.plugins import entry, install, registry

ATTENTION = "register_attention"


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on the path; modules that a test imported from it are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(ATTENTIONS, "_classes", {})  # what a test imports registers itself there
    yield tmp_path
    for name in list(sys.modules):
        if name.split(".")[0] in ("plug", "single"):
            del sys.modules[name]


def broken_in(made, point="plugin"):
    return [one for one in made.broken() if one.point == point]


def test_every_class_below_a_package_is_an_entry(site):
    install(site, "plugin", {"plugin": "plug"}, {
        "plug/one.py": entry("one"),
        "plug/deep/down/two.py": entry("two"),
        "plug/many.py": entry("three", "Three") + entry("four", "Four"),
        "plug/__init__.py": entry("five"),
        "plug/helper.py": "class Attention: ...\n",
    })  # fmt: skip
    made = registry()
    targets = {name: found.target for name, found in made.entries().items()}
    assert targets["one"] == "plug.one:Mine"
    assert targets["two"] == "plug.deep.down.two:Mine"
    assert targets["three"] == "plug.many:Three"
    assert targets["four"] == "plug.many:Four"
    assert targets["five"] == "plug:Mine"
    assert broken_in(made) == []
    assert not {name for name in sys.modules if name.split(".")[0] == "plug"}
    assert made.load(made.resolve("two")).info == made.resolve("two").info


def test_a_new_file_is_listed_at_once(site):
    install(site, "plugin", {"plugin": "plug"}, {"plug/one.py": entry("one")})
    assert "two" not in registry().entries()
    (site / "plug/two.py").write_text(entry("two"))
    assert {"one", "two"} <= set(registry().entries())
    (site / "plug/one.py").unlink()
    assert "one" not in registry().entries()


def test_a_module_may_stand_for_its_classes(site):
    install(site, "plugin", {"plugin": "single"}, {"single.py": entry("one")})
    assert registry().resolve("one").target == "single:Mine"


def test_single_classes_go_on_working(site):
    install(site, "plugin", {"one": "plug.one:Mine", "wrong": "plug.two:Mine"}, {
        "plug/one.py": entry("one"),
        "plug/two.py": entry("two"),
    })  # fmt: skip
    made = registry()
    assert made.resolve("one").target == "plug.one:Mine"
    assert "two" not in made.entries()
    [broken] = broken_in(made, "wrong")
    assert "calls itself 'two'" in broken.reason


def test_a_class_and_its_package_may_both_be_named(site):
    points = {"one": "plug.one:Mine", "plugin": "plug"}
    install(site, "plugin", points, {"plug/one.py": entry("one"), "plug/two.py": entry("two")})
    made = registry()
    assert {"one", "two"} <= set(made.entries())
    assert broken_in(made) == broken_in(made, "one") == []


def test_an_id_that_two_classes_have_names_both(site):
    install(site, "plugin", {"plugin": "plug"}, {
        "plug/one.py": entry("same"),
        "plug/two.py": entry("same", "Other"),
    })  # fmt: skip
    made = registry()
    assert made.resolve("same").target == "plug.one:Mine"
    [broken] = broken_in(made)
    assert broken.id == "same"
    for place in ("plug.one:Mine", "plug.two:Other", str(site / "plug/one.py")):
        assert place in broken.reason
    assert "another id" in broken.remedy


def test_an_id_of_ours_cannot_be_taken_by_a_package(site):
    install(site, "a-plugin", {"a-point": "plug"}, {"plug/one.py": entry("softmax")})
    made = registry()
    assert made.resolve("softmax").target == "attentions.softmax:SoftmaxAttention"
    [broken] = broken_in(made, "a-point")
    assert "attentions.softmax:SoftmaxAttention" in broken.reason


@pytest.mark.parametrize("body", ["def f(:\n", "\0", "x = '\n"])
def test_a_file_that_is_no_python_is_broken_and_no_other_is(site, body):
    install(site, "plugin", {"plugin": "plug"}, {
        "plug/bad.py": entry("bad") + body,
        "plug/good.py": entry("good"),
    })  # fmt: skip
    made = registry()
    assert "good" in made.entries()
    [broken] = broken_in(made)
    assert broken.target == "plug.bad"
    assert broken.package == "plugin"
    assert "Error" in broken.reason
    assert str(site / "plug/bad.py") in broken.remedy
    with pytest.raises(RegistrationError, match=r"'bad' is broken: \w+Error.*mend"):
        made.resolve("bad")


def test_a_record_that_needs_its_module_imports_that_module_alone(site):
    late = "TITLE = str('late')\n" + entry("late", record="AttentionInfo(id='late', title=TITLE, "
           "formula='', time='', memory='', patterns={{}})")  # fmt: skip
    files = {"plug/late.py": late, "plug/other.py": entry("other")}
    install(site, "plugin", {"plugin": "plug"}, files)
    made = registry()
    assert made.resolve("late").info.title == "late"
    assert "plug.late" in sys.modules
    assert "plug.other" not in sys.modules


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("raise SystemExit(3)\n", "does not import: SystemExit"),
        ("1 / 0\n", "does not import: ZeroDivisionError"),
        ("del Mine\n", "has no class Mine"),
        ("Mine = int\n", "is not an attention"),
    ],
)
def test_an_import_that_fails_is_broken_and_no_other_is(site, body, says):
    late = entry("late", record="AttentionInfo(**{{'id': 'late', 'title': str(1), 'formula': '', "
                 "'time': '', 'memory': '', 'patterns': {{}}}})")  # fmt: skip
    files = {"plug/late.py": late + body, "plug/good.py": entry("good")}
    install(site, "plugin", {"plugin": "plug"}, files)
    made = registry()
    for _ in range(2):
        assert "good" in made.entries()
        assert "late" not in made.entries()
    [broken] = broken_in(made)
    assert says in broken.reason


def test_an_id_that_is_none_is_broken(site):
    install(site, "plugin", {"plugin": "plug"}, {"plug/one.py": entry("Not Kebab")})
    made = registry()
    [broken] = broken_in(made)
    assert "not kebab-case" in broken.reason
    assert made.entries()


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "there is no package plug"),
        ({"plug/__init__.py": ""}, "nothing in plug is decorated"),
        ({"plug.py": ""}, "nothing in plug is decorated"),
    ],
)
def test_a_point_that_leads_to_nothing_is_broken(site, files, says):
    install(site, "my-plugin", {"plugin": "plug"}, files)
    [broken] = broken_in(registry())
    assert says in broken.reason
    assert "install my-plugin again" in broken.remedy


def test_examples_in_strings_and_inner_classes_are_no_entries(site):
    install(site, "plugin", {"plugin": "plug"}, {
        "plug/one.py": f'"""Like this:\n\n{entry("example")}"""\n' + entry("one"),
        "plug/two.py": "def make():\n    @register_attention(None)\n    class Inner: ...\n",
    })  # fmt: skip
    found = [one.target for one in scan("plug", ATTENTION)]
    assert found == ["plug.one:Mine"]


ODD = """
@register_attention(None)
class Odd(Attention if "a:b" else object):
    def one(self): ...
"""


def test_what_python_has_compiled_is_read_up_to_the_last_record(site, monkeypatch):
    install(site, "plugin", {}, {
        "plug/one.py": entry("one") + entry("two", "Two") + "REST = 1\n" * 1000,
        "plug/odd.py": entry("three") + ODD,
    })  # fmt: skip
    before = scan("plug", ATTENTION)
    assert [one.target for one in before] == [
        "plug.odd:Mine", "plug.odd:Odd", "plug.one:Mine", "plug.one:Two",
    ]  # fmt: skip
    compileall.compile_dir(site / "plug", quiet=1)
    sizes, parse = [], ast.parse
    monkeypatch.setattr(ast, "parse", lambda text: sizes.append(len(text)) or parse(text))
    assert scan("plug", ATTENTION) == before
    *_, whole, first_part = sizes
    assert whole == len(entry("three") + ODD)
    assert first_part < 1000


def test_what_was_edited_since_is_read_whole(site):
    install(site, "plugin", {}, {"plug/one.py": entry("one") + "x = 1\n"})
    compileall.compile_dir(site / "plug", quiet=1)
    (site / "plug/one.py").write_text(entry("one") + "x = (1\n")
    [broken] = scan("plug", ATTENTION)
    assert "SyntaxError" in broken.reason


def test_the_other_registrys_decorator_is_none_of_ours(site):
    install(site, "plugin", {}, {
        "plug/one.py": entry("one").replace("register_attention", "register_attention_of_mine"),
        "plug/two.py": entry("two").replace("@register", "@cab.register"),
    })  # fmt: skip
    assert [one.target for one in scan("plug", ATTENTION)] == ["plug.two:Mine"]


@pytest.mark.parametrize("package", ["attentions", "tasks"])
def test_our_own_records_are_all_read_from_source(package):
    found = scan(package, f"register_{package[:-1]}")
    assert found
    assert [one for one in found if not (isinstance(one, Found) and one.info is not None)] == []


def test_entries_and_engines_lie_apart():
    entries = {one.path for one in scan("attentions", ATTENTION)}
    shared = ROOT / "attentions/shared"
    assert not [path for path in entries if path.is_relative_to(shared)]
    for folder in (ROOT / "attentions", ROOT / "attentions/modifiers"):
        assert {path for path in folder.glob("*.py") if path.stem != "__init__"} <= entries


def test_a_hundred_entries_cost_little_more_than_parsing_them(site, monkeypatch):
    source = (ROOT / "attentions/linear_elu.py").read_text()
    files = {
        f"plug/m{n}.py": source.replace('id="linear-elu"', f'id="mine-{n}"') for n in range(100)
    }
    files |= {f"plug/shared/engine{n}.py": source.replace("@register", "# ") for n in range(100)}
    install(site, "plugin", {"plugin": "plug"}, files)
    parsed = []
    parse = ast.parse
    monkeypatch.setattr(ast, "parse", lambda *a, **k: parsed.append(1) or parse(*a, **k))
    assert len(scan("plug", ATTENTION)) == len(parsed) == 100
    monkeypatch.setattr(ast, "parse", parse)

    def seconds(work):
        start = time.process_time()
        work()
        return time.process_time() - start

    texts = list(files.values())[:100]
    parsing = min(seconds(lambda: [ast.parse(text) for text in texts]) for _ in range(5))
    scanning = min(seconds(lambda: scan("plug", ATTENTION)) for _ in range(5))
    assert scanning < 3 * parsing


def test_a_package_is_listed_without_importing_torch(site):
    install(
        site, "plugin", {"plugin": "plug"}, {f"plug/m{n}.py": entry(f"m-{n}") for n in range(9)}
    )
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r}); import cab\n"
        "assert 'm-8' in [i.id for i in cab.attentions()]\n"
        "assert not {'torch', 'plug', 'attentions'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
