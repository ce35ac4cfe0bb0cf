"""What planning keeps is found again only while every file that it was read from is the same."""

import json

import pytest

from cab.plan_cache import PlanCache, default_file


@pytest.fixture
def place(tmp_path):
    source = tmp_path / "source.py"
    source.write_text("x = 1\n")
    return tmp_path / "cache" / "plan.json", source


def ask(file, source, answer="computed", find=None):
    asked = []

    def compute():
        asked.append(1)
        return answer, {"mine": source}

    cache = PlanCache(file)
    found = cache.code("key", compute, find or (lambda name: source))
    cache.save()
    return found, bool(asked)


def test_code_is_hashed_once(place):
    assert ask(*place) == ("computed", True)
    assert ask(*place, "other") == ("computed", False)


def test_an_edited_file_is_hashed_anew(place):
    ask(*place)
    place[1].write_text("x = 22\n")
    assert ask(*place, "other") == ("other", True)


def test_a_name_that_leads_elsewhere_is_hashed_anew(place, tmp_path):
    ask(*place)
    assert ask(*place, "other", find=lambda name: tmp_path / "elsewhere.py")[1]
    assert ask(*place, "other", find=lambda name: None)[1]


def test_data_are_found_by_what_they_are_read_from(place):
    file, source = place
    answers = iter("ab")
    for want in "aa":
        cache = PlanCache(file)
        assert cache.data("task", [source], lambda: next(answers)) == want
        cache.save()
    source.write_text("longer than before\n")
    assert PlanCache(file).data("task", [source], lambda: next(answers)) == "b"


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"version": 0, "code": {}, "data": {}}', '{"version": 1}',
     '{"version": 1, "code": {"key": {"hash": 1, "files": []}}, "data": {}}',
     '{"version": 1, "code": {"key": []}, "data": {}}'],
)  # fmt: skip
def test_a_damaged_cache_is_no_cache(place, content):
    file, _ = place
    file.parent.mkdir()
    file.write_text(content)
    assert ask(*place) == ("computed", True)
    assert json.loads(file.read_text())["code"]["key"]["hash"] == "computed"


def test_a_cache_that_cannot_be_written_costs_time_alone(place):
    file, source = place
    file.parent.write_text("a file where a folder should be")
    assert ask(file, source) == ("computed", True)
    assert ask(file, source) == ("computed", True)


def test_where_it_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("CAB_CACHE", str(tmp_path))
    assert default_file() == tmp_path / "plan.json"
    monkeypatch.delenv("CAB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_file() == tmp_path / "cab" / "plan.json"
