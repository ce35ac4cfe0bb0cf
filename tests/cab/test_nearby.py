"""Names that are no ids: what lies nearby is suggested, from source and within bounds."""

import pytest

from cab import nearby
from cab.errors import RegistrationError, UnknownEntryError
from cab.registries import ATTENTIONS, TASKS
from tests.cab.plugins import entry

PLAIN = "from cab import Attention\n\n\nclass {name}(Attention): ...\n"
NEVER_IMPORTED = "raise SystemExit('imported')\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(NEVER_IMPORTED + text)

    return write


def told(name, registry=ATTENTIONS):
    with pytest.raises((UnknownEntryError, RegistrationError)) as caught:
        registry.resolve(name)
    return str(caught.value)


def test_a_file_of_that_name(here):
    here("mine.py", PLAIN.format(name="Other"))
    assert told("mine") == "unknown attention 'mine'; did you mean ./mine.py:Other?"


def test_a_class_of_that_name_in_a_folder(here):
    here("ideas/code.py", PLAIN.format(name="MyMean"))
    for name in ("my-mean", "MyMean", "mymean", "my_mean"):
        assert "did you mean ./ideas/code.py:MyMean?" in told(name)


def test_a_record_of_that_name(here):
    here("code.py", entry("fast-mean") + entry("slow-mean", "Slow"))
    assert told("fast-mean").endswith("did you mean ./code.py:Mine?")


def test_a_derived_class(here):
    here("code.py", "from attentions.local import LocalAttention as L\n\n\nclass Own(L): ...\n"
         "class Deeper(Own): ...\nclass Config: ...\n")  # fmt: skip
    assert "./code.py:Deeper" in told("deeper")
    assert "code.py" not in told("config")


def test_near_ids_are_suggested_too(here):
    here("softmux.py", PLAIN.format(name="Softmux"))
    assert "did you mean ./softmux.py:Softmux, softmax" in told("softmux")


def test_tasks_are_found_the_same_way(here):
    here("mine.py", "from cab import Task\n\n\nclass MyTask(Task): ...\n")
    assert told("my-task", TASKS) == "unknown task 'my-task'; did you mean ./mine.py:MyTask?"
    assert "mine.py" not in told("my-task")


def test_nothing_nearby(here):
    here("mine.py", "class Mine: ...\n")
    assert "did you mean" not in told("zzzzzzzz")
    assert "mine.py" not in told("mine")
    assert "known: abc" in told("-")


def test_what_is_no_python_or_cannot_be_read_is_passed_over(here, tmp_path):
    here("mine.py", "def f(:\n")
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "latin.py").write_bytes(b"# \xff\nclass Mine(Attention): ...\n")
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere.py")
    assert ".py" not in told("mine")


def test_the_search_is_bounded(here, monkeypatch):
    here("a/b/mine.py", PLAIN.format(name="Mine"))
    here(".hidden/mine.py", PLAIN.format(name="Mine"))
    here("venv/mine.py", PLAIN.format(name="Mine"))
    here("venv/pyvenv.cfg", "")
    assert ".py" not in told("mine")
    here("z/mine.py", PLAIN.format(name="Mine"))
    assert told("mine").count(".py") == 1
    monkeypatch.setattr(nearby, "_LARGEST_FILE", 10)
    assert ".py" not in told("mine")


@pytest.mark.parametrize("bound", ["_MOST_FILES", "_MOST_LISTED", "_MOST_FOLDERS"])
def test_so_is_the_number_of_files_and_folders(here, monkeypatch, bound):
    here("z/mine.py", PLAIN.format(name="Mine"))
    assert ".py" in told("mine")
    monkeypatch.setattr(nearby, bound, 0)
    assert ".py" not in told("mine")


def test_our_own_packages_are_not_searched(monkeypatch):
    monkeypatch.chdir(nearby.ROOT)
    assert ".py" not in told("SoftmaxAttention")


def test_a_file_without_a_class_says_which_it_has(here, tmp_path):
    here("mine.py", entry("one") + PLAIN.format(name="Other") + "class Helper: ...\n")
    assert told("mine.py") == "mine.py has Mine, Other; name one as mine.py:Mine"
    full = f"{tmp_path}/mine.py"
    assert told(full) == f"{full} has Mine, Other; name one as {full}:Mine"


def test_a_file_with_one_class_asks_for_it_all_the_same(here):
    here("mine.py", PLAIN.format(name="Only"))
    assert told("mine.py") == "mine.py has Only; name one as mine.py:Only"


def test_a_tasks_file_does_so_too(here):
    here("mine.py", "from cab import Task\n\n\nclass A(Task): ...\n\n\nclass B(A): ...\n")
    assert told("mine.py", TASKS) == "mine.py has A, B; name one as mine.py:A"


def test_a_file_without_entries_says_what_else_there_is(here):
    here("mine.py", "class Helper: ...\n")
    assert told("mine.py") == "mine.py has Helper; name one as mine.py:Helper"
    here("none.py", "")
    assert "none.py has no class" in told("none.py")
    here("bad.py", "def f(:\n")
    assert "bad.py cannot be read: SyntaxError" in told("bad.py")
    assert told("absent.py") == "absent.py does not exist"
