"""Requests become cells: controls included once, unsupported pairs said, data folders found."""

import pytest

from cab.chosen_task import data_dir_of
from cab.errors import UsageError
from cab.patterns import Pattern
from cab.request import Request
from runners.planner import make_plan


def plan(**fields):
    base = {"attentions": ["lla"], "patterns": ["CC"], "scale": "tiny", "seeds": 1,
            "tasks": ["test-time-regression"], "measures": ["quality"]}  # fmt: skip
    return make_plan(Request(**{**base, **fields}), machine="here")


def names(cells):
    return [cell.attention for cell in cells]


def test_controls_stand_beside_the_candidate_once():
    assert sorted(names(plan().cells)) == ["lla", "none", "softmax"]
    assert sorted(names(plan(attentions=["softmax", "lla", "lla"]).cells)) == [
        "lla", "none", "softmax"
    ]  # fmt: skip


def test_seeds_come_before_attentions():
    cells = plan(seeds=2).cells
    assert [cell.seed for cell in cells] == [0, 0, 0, 1, 1, 1]


def test_efficiency_cells_are_bound_to_the_machine_and_leave_none_out():
    cells = plan(measures=["latency", "memory"], seeds=2).cells
    assert sorted(set(names(cells))) == ["lla", "softmax"]
    assert {cell.machine for cell in cells} == {"here"}
    other = make_plan(
        Request(attentions=["lla"], patterns=["CC"], scale="tiny", seeds=2,
                tasks=["test-time-regression"], measures=["latency", "memory"]),
        machine="elsewhere",
    )  # fmt: skip
    assert {c.key for c in cells}.isdisjoint(c.key for c in other.cells)


def test_cell_keys_are_the_same_for_the_same_request():
    assert [c.key for c in plan().cells] == [c.key for c in plan().cells]
    keys = {c.key for c in plan().cells if c.attention == "lla"}
    changed = plan(options={"ridge": "0.5"})
    assert keys.isdisjoint(c.key for c in changed.cells)
    # An option of the candidate does not touch the controls.
    assert {c.key for c in plan().cells} & {c.key for c in changed.cells}


def test_patterns_that_one_of_several_lacks_are_noted():
    made = plan(attentions=["local"], patterns=["all"])
    assert made.patterns == [Pattern.CAUSAL_SELF]
    assert any("local does not support causal-cross" in note for note in made.notes)
    assert set(names(made.cells)) == {"local", "softmax", "none"}


def test_two_entries_of_one_id(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.py").write_text(
            "from cab import Attention\n\n\nclass Mine(Attention):\n    pass\n"
        )
    targets = [f"{tmp_path}/{folder}/x.py:Mine" for folder in ("a", "b")]
    with pytest.raises(UsageError, match="both call themselves 'mine'"):
        plan(attentions=targets)


def test_a_tasks_own_folder_is_preferred(tmp_path):
    from cab.registries import TASKS

    info = TASKS.resolve("forecasting").info
    assert data_dir_of(info, tmp_path) == tmp_path
    (tmp_path / "forecasting").mkdir()
    assert data_dir_of(info, tmp_path) == tmp_path / "forecasting"
    assert data_dir_of(info, None) is None
    assert data_dir_of(TASKS.resolve("test-time-regression").info, tmp_path) is None


def test_a_preset_sets_options_and_given_options_go_on_top():
    options = {c.attention: c.options for c in plan(attentions=["performer"], preset="cab").cells}
    assert options["performer"]["features"] == 16
    assert options["softmax"] == {}
    cells = plan(attentions=["performer"], preset="cab", options={"features": "8"}).cells
    assert {c.attention: c.options for c in cells}["performer"]["features"] == 8


def test_a_preset_must_exist_where_the_attention_is_named():
    with pytest.raises(UsageError, match="'lla' has no preset 'cab'"):
        plan(attentions=["performer", "lla"], preset="cab")
    with pytest.raises(UsageError, match="no preset 'cap'"):
        plan(attentions=["all"], preset="cap")
    notes = plan(attentions=["all"], preset="cab").notes
    assert "lla has no preset cab: its defaults" in notes
    assert not any("performer has no preset" in note for note in notes)


def test_all_is_all_that_support_the_pattern():
    made = plan(attentions=["all"])
    assert "abc" in names(made.cells)
    assert "local" not in names(made.cells)
    assert "local does not support causal-cross: left out" in made.notes
