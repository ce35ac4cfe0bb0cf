"""What a board can tell, in words that agree with its numbers."""

from __future__ import annotations

import re

import pytest

from cab.scoring.quality import quality_board
from cab.scoring.resolution import resolution
from cab.sheets.resolution import detail_sheets, matrix_sheet, separated_words, summary, tasks_sheet
from cab.sheets.sheet import Sheet
from cab.track import Track
from tests.scoring.test_resolution import LOSSES, board_of

TRACK = Track("causal-self", "tiny", "cpu")
WIDTH = 80


def told(**fields):
    found = resolution(board_of(LOSSES, **fields))
    assert found is not None
    return found


def test_the_paragraph_says_the_numbers():
    found = told()
    words = summary(found)
    assert words.startswith("What this board can tell: 6 ranked entries, 3 tasks, 3 seeds.")
    of, here, general = map(
        int,
        re.search(r"Of (\d+) adjacent ranks the data separate (\d+) .*, (\d+) of", words).groups(),
    )
    assert (of, here, general) == (5, found.adjacent.here, found.adjacent.general)
    assert "The order is the same without any one of its tasks." in words
    size = float(re.search(r"differ by ([0-9.]+) to be told apart", words)[1])
    assert size == pytest.approx(found.detectable.here, rel=0.05)
    sharpest = max(found.tasks, key=lambda task: found.signals[task].ratio.value)
    assert f"({sharpest}) to" in words


@pytest.mark.parametrize(
    ("fields", "says", "says_not"),
    [
        (
            {"seeds": 1, "tasks": ("p",)},
            "With a single seed nothing tells one rank from the next.",
            "power",
        ),
        ({"seeds": 1}, "to be told apart in general (80 % power)", "told apart on"),
        ({"tasks": ("p",)}, "1 task, 3 seeds", "The order"),
        ({"tasks": ("p",)}, "on this task (80 %); one task says nothing of others.", "general"),
        ({"lacking": {("abc", "p")}}, "5 ranked entries", "6"),
    ],
)
def test_what_is_not_known_is_not_said(fields, says, says_not):
    words = summary(told(**fields))
    assert says in words
    assert says_not not in words.replace(says, "")
    assert "nan" not in words


def test_controls_alone_say_nothing_of_tasks():
    board = board_of({"softmax": 1.0, "softmax-exact": 1.0, "none": 3.0})
    found = resolution(board)
    assert "No mechanism but softmax is ranked" in summary(found)
    assert all(
        "nan" not in str(line.shown) for s in detail_sheets(found, TRACK) for line in s.lines
    )
    assert "share" not in [column.title for column in tasks_sheet(found, TRACK).columns]


def test_an_order_that_hangs_on_a_task_says_so():
    losses = {("good", t): x for t, x in zip("pqr", (0.1, 1.3, 1.3), strict=True)}
    losses |= {("fair", t): 0.9 for t in "pqr"} | {("softmax", t): 1.0 for t in "pqr"}
    losses |= {("none", t): 9.0 for t in "pqr"}
    from cab.schema import table_of
    from cab.scoring.results import current
    from tests.scoring.test_scoring import rows_of

    scores = {key: [x * (1 + 0.01 * seed) for seed in range(3)] for key, x in losses.items()}
    results = current(table_of(rows_of(scores)).to_pandas(), {}, installed=lambda name: ())
    found = resolution(quality_board(results, TRACK, {task: ["loss"] for task in "pqr"}))
    words = summary(found)
    assert "Leaving out p changes the order most: 2 of 3 pairs swap (Kendall's τ -0.33)." in words
    line = tasks_sheet(found, TRACK).lines[0]
    assert line.data["moved"] == "good"
    assert line.data["places"] == -2


def test_the_matrix_has_a_character_for_every_entry_and_is_its_own_mirror():
    sheet = matrix_sheet(told(), TRACK)
    rows = [line.shown[2] for line in sheet.lines]
    mirror = str.maketrans("+-><", "-+<>")
    for i, row in enumerate(rows):
        assert len(row) == len(rows)
        assert "".join(other[i] for other in rows) == row.translate(mirror)
        data = sheet.lines[i].data
        assert data["better"] == row.count("+")
        assert data["worse_here"] == row.count("<")
    assert sheet.columns[2].title == "1   5 "
    only = matrix_sheet(told(), TRACK, ["softmax"])
    assert [line.data["entry"] for line in only.lines] == ["softmax"]


def test_thirty_entries_fit_a_terminal():
    losses = {f"entry-with-a-name-{n:02}": 1.0 + 0.1 * n for n in range(30)}
    found = resolution(board_of({"softmax": 1.0, "none": 30.0, **losses}))
    sheets: list[Sheet] = detail_sheets(found, TRACK)
    assert all(sheet.fitted(WIDTH).width <= WIDTH for sheet in sheets)
    assert [c.title for c in sheets[1].fitted(WIDTH).columns][:2] == ["#", "attention"]
    assert "10   15   20" in sheets[1].columns[2].title


def test_neighbours_are_counted_by_the_marks_before_ranks():
    board = board_of(LOSSES)
    marks = [s.separation.mark for s in board.standings if s.rank is not None][1:]
    here, general = len(marks) - marks.count("="), marks.count("")
    assert f"separate {here} on these tasks" in separated_words(board.standings)
    assert f", {general} of them in general" in separated_words(board.standings)
    assert separated_words(board_of(LOSSES, seeds=1, tasks=("p",)).standings) == ""
    assert separated_words([]) == ""
