"""Every name of a request is looked up once, at the door."""

import os
import subprocess
import sys

import pytest

from cab.candidate import choose_candidate
from cab.controls import BASELINE, CONTROLS
from cab.errors import OptionError, UnsupportedPatternError
from cab.patterns import Pattern
from cab.registries import ATTENTIONS, TASKS
from cab.request import Request, resolve_request
from runners.planner import make_plan


@pytest.fixture
def resolved(monkeypatch):
    """The names that registries are asked for."""
    asked = []
    for registry in (ATTENTIONS, TASKS):
        whole = registry.resolve

        def resolve(name, whole=whole):
            asked.append(name)
            return whole(name)

        monkeypatch.setattr(registry, "resolve", resolve)
    return asked


def test_a_plan_asks_once_for_each_name(resolved):
    request = Request(attentions=["lla", "performer"], patterns=["all"], options={"ridge": "0.5"})
    assert len(make_plan(request, "here").cells) > 100
    assert sorted(resolved) == sorted(["lla", "performer", *CONTROLS])


def test_a_lineup_holds_what_was_named():
    lineup = resolve_request(
        Request(attentions=["softmax", "local"], patterns=["NC", "NS"], tasks=["masked-lm"],
                preset="", options={"window": "32"}, seeds=2)
    )  # fmt: skip
    assert [c.id for c in lineup.candidates] == ["softmax", "local"]
    assert lineup.candidates[1].options["window"] == 32
    assert [c.id for c in lineup.controls] == ["none"]
    assert lineup.baseline.id == BASELINE
    assert list(lineup.patterns) == [Pattern.NONCAUSAL_CROSS, Pattern.NONCAUSAL_SELF]
    assert [task.id for task in lineup.tasks] == ["masked-lm"]
    assert "local does not support noncausal-cross: left out" in lineup.notes


def test_a_candidate_says_what_it_cannot():
    candidate = choose_candidate("local")
    with pytest.raises(UnsupportedPatternError, match="local"):
        candidate.require(Pattern.CAUSAL_CROSS)
    with pytest.raises(OptionError, match="must be even"):
        choose_candidate("s4d", {"state": 3}).require_buildable()


def test_candidates_are_equal_where_entry_and_options_are():
    assert choose_candidate("lla", {"ridge": "0.5"}) == choose_candidate("lla", {"ridge": 0.5})
    assert choose_candidate("lla", {"ridge": "0.5"}) != choose_candidate("lla")


def test_a_plan_that_is_known_needs_no_torch(tmp_path):
    code = (
        "import sys; from cab.request import Request; from runners.planner import make_plan; "
        "make_plan(Request(attentions=['all'], patterns=['CC'], tasks=['test-time-regression']), "
        "''); print('torch' in sys.modules)"
    )
    for known in (False, True):  # the data of the task is looked at the first time
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env={**os.environ, "CAB_CACHE": str(tmp_path)},  # no other test writes to it
        )
        assert done.returncode == 0, done.stderr
        if known:
            assert done.stdout == "False\n"
