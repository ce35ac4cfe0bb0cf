"""Hybrids in plans and before the contract."""

import pytest

from cab.errors import UsageError
from cab.request import Request
from runners.gate import examine_candidates, to_examine
from runners.planner import make_plan

NAME = "softmax:1,linear-elu:3"


@pytest.fixture
def plan():
    def make(*hybrids, **fields):
        base = {"attentions": [], "patterns": ["CS"], "scale": "tiny", "seeds": 1,
                "tasks": ["state-tracking", "summarization"], "measures": ["quality"]}  # fmt: skip
        return make_plan(Request(**{**base, "hybrids": hybrids, **fields}), machine="here")

    return make


def test_a_hybrid_is_measured_where_all_its_parts_stand(plan):
    made = plan(NAME)
    assert {(c.attention, c.task) for c in made.cells} == {
        (name, "state-tracking") for name in (NAME, "softmax", "none")
    }
    assert made.candidates == [NAME]
    assert any("no layer for linear-elu in the causal-self slots of summ" in n for n in made.notes)
    assert f"{NAME}: 1 softmax, 1 linear-elu in the causal-self slots of state-tracking" in (
        made.notes
    )
    (cell,) = (c for c in made.cells if c.attention == NAME)
    assert cell.options == {}
    assert cell.target.startswith("attentions.softmax:")


def test_others_are_measured_on_all_tasks(plan):
    made = plan(NAME, attentions=["lla"])
    assert {c.task for c in made.cells if c.attention == "lla"} == {
        "state-tracking", "summarization"
    }  # fmt: skip
    assert {c.task for c in made.cells if c.attention == NAME} == {"state-tracking"}


def test_keys_follow_the_parts(plan):
    keys = {c.key for name in (NAME, "softmax:1,linear-elu:2") for c in plan(name).cells}
    assert len(keys) == 4  # two controls, two hybrids


def test_a_hybrid_that_no_task_can_hold_is_refused(plan):
    with pytest.raises(UsageError, match="a layer of causal-self slots for every part"):
        plan("softmax:2,linear-elu:1")


def test_costs_are_those_of_the_parts(plan):
    made = plan(NAME, attentions=["lla"], measures=["quality", "latency"])
    timed = {c.attention for c in made.cells if c.kind == "efficiency"}
    assert timed == {"lla", "softmax"}
    assert any(note.startswith(f"no costs of {NAME}") for note in made.notes)
    with pytest.raises(UsageError, match="measured of softmax, linear-elu"):
        plan(NAME, measures=["latency"])


def test_a_formula_is_asked_for(plan):
    with pytest.raises(UsageError, match="name:layers"):
        plan("lla")


def test_parts_from_outside_are_held_to_the_contract(plan, candidate, monkeypatch):
    monkeypatch.setenv("CAB_CHECKED", "")
    leak = candidate("return v.mean(-2, keepdim=True).expand_as(v)")
    made = plan(f"softmax:1,{leak}:1", attentions=[NAME.split(":")[0]])
    names = {c.attention for c in made.cells}
    assert "softmax:1,candidate:1" in names
    assert to_examine(made.cells) == ["softmax:1,candidate:1 on causal-self"]
    rejected = examine_candidates(made.cells)
    assert {r.attention for r in rejected} == {"softmax:1,candidate:1"}
    assert {r.target for r in rejected} == {leak}
    assert any("caus" in rule for rule in rejected[0].violations)


def test_hybrids_of_own_entries_are_not_examined(plan):
    assert to_examine(plan(NAME).cells) == []
