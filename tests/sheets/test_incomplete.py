"""An entry that lacks tasks says how many it has, and is nowhere ranked as though it had all."""

from __future__ import annotations

import itertools

import pytest

from cab.schema import table_of
from cab.scoring.quality import quality_board
from cab.scoring.results import current
from cab.sheets.standings import board_sheet, overall_sheet, rating_sheet
from cab.track import Setting
from dashboard.frames import frame_of
from tests.scoring.test_scoring import rows_of

TASKS = ("p", "q", "r", "s")
SETTING = Setting("tiny", "cpu")
LEVELS = {"softmax": 1.0, "none": 5.0, "good": 0.5, "bad": 2.0}
"""Losses; what lacks tasks is better than all of them, or worse"""


def boards(lacking, loss, patterns=("causal-self",)):
    """Boards by pattern, where entry ``part`` lacks some tasks in the first of them."""
    rows = []
    for pattern in patterns:
        scores = {
            (entry, task): [level * (1 + 0.01 * seed) for seed in range(3)]
            for entry, level in {**LEVELS, "part": loss}.items()
            for task in TASKS
            if entry != "part" or pattern != patterns[0] or task not in lacking
        }
        rows += rows_of(scores, pattern=pattern)
    results = current(table_of(rows).to_pandas(), defaults={}, installed=lambda name: ())
    headline = {task: ["loss"] for task in TASKS}
    found = {p: quality_board(results, SETTING.track(p), headline) for p in patterns}
    return results, found


def sheets(lacking, loss):
    results, found = boards(lacking, loss)
    (board,) = found.values()
    track = SETTING.track("causal-self")
    return [board_sheet(results, board, track), rating_sheet(board, track)]


def words(sheet, title):
    place = [column.title for column in sheet.columns].index(title)
    return {line.data["entry"]: line.shown[place] for line in sheet.lines}


SUBSETS = [
    lacking for size in range(1, len(TASKS)) for lacking in itertools.combinations(TASKS, size)
]


@pytest.mark.parametrize("loss", [0.1, 1.0, 9.0])
@pytest.mark.parametrize("lacking", SUBSETS, ids="".join)
def test_it_stands_below_all_that_are_complete_and_says_what_it_has(lacking, loss):
    has = f"{len(TASKS) - len(lacking)} of {len(TASKS)}"
    for sheet in sheets(lacking, loss):
        assert [line.data["entry"] for line in sheet.lines][-1] == "part"
        assert words(sheet, "tasks") == dict.fromkeys(LEVELS, "4 of 4") | {"part": has}
        assert words(sheet, "#")["part"] == ""
        assert sheet.lines[-1].data["rank"] is None
        for name in ("index", "strength", "beats_softmax"):
            assert sheet.lines[-1].data.get(name) is None
        assert has in set(frame_of(sheet)["Tasks"])
    for sheet in sheets(lacking, loss):
        for title in ("index", "strength"):
            if title in [column.title for column in sheet.columns]:
                assert words(sheet, title)["part"] == "-"


def test_where_all_are_complete_nothing_is_said_of_it():
    board, rating = sheets((), 0.7)
    assert "tasks" not in [column.title for column in board.columns]
    assert set(words(rating, "tasks").values()) == {"4 of 4"}
    assert sorted(line.data["rank"] for line in rating.lines) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("lacking", [("p",), TASKS], ids=["a task", "a pattern"])
def test_over_all_patterns_too(lacking):
    _, found = boards(lacking, 0.1, ("causal-self", "noncausal-self"))
    sheet = overall_sheet(found, SETTING)
    assert sheet is not None
    assert [line.data["entry"] for line in sheet.lines][-1] == "part"
    assert words(sheet, "patterns")["part"] == "1 of 2"
    assert words(sheet, "patterns")["good"] == "2 of 2"
    assert words(sheet, "#")["part"] == ""
    assert sheet.lines[-1].data["beats_softmax"] is None
