"""What a sheet is made of, and how a narrow terminal and a data frame see it."""

from __future__ import annotations

from cab.sheets import columns
from cab.sheets.sheet import Column, Field, Sheet, columns_of, lines_of
from dashboard.frames import frame_of
from dashboard.wording import emphasised

SQUARES: tuple[Field[int], ...] = (
    Field(Column("name"), lambda n: f"n{n}", lambda n: {"name": f"n{n}"}),
    Field(Column("square", right=True, keep=1, key="square"), lambda n: f"{n * n:,}",
          lambda n: {"square": n * n}),
    Field(None, data=lambda n: {"cube": n**3}),
)  # fmt: skip


def squares(*numbers: int) -> Sheet:
    return Sheet("squares", columns_of(SQUARES), lines_of(SQUARES, numbers))


def test_a_field_without_a_column_is_for_machines() -> None:
    [line] = squares(100).lines
    assert line.shown == ("n100", "10,000")
    assert line.data == {"name": "n100", "square": 10_000, "cube": 1_000_000}


def test_an_empty_sheet_has_its_columns() -> None:
    assert [column.title for column in squares().columns] == ["name", "square"]
    assert list(frame_of(squares()).columns) == ["Name", "Square"]


def test_a_frame_holds_numbers_where_a_column_has_them() -> None:
    frame = frame_of(squares(100, 2))
    assert list(frame["Name"]) == ["n100", "n2"]
    assert list(frame.sort_values("Square")["Square"]) == [4, 10_000]


def test_a_narrow_terminal_loses_the_columns_that_say_so() -> None:
    assert [column.title for column in squares(100).fitted(8).columns] == ["name"]


def test_no_heading_of_the_dashboard_is_used_twice() -> None:
    named = [c for c in vars(columns).values() if isinstance(c, Column)]
    assert len({(c.title, c.right, c.page) for c in named}) == len(named)


def test_a_note_is_a_sentence_unless_it_is_a_list_under_a_name() -> None:
    assert emphasised("ranks count all", []) == "Ranks count all."
    assert emphasised("lla has no index", ["lla"]) == "**lla** has no index."
    assert emphasised("lla: 1 task left out", ["lla"]) == r"lla\: 1 task left out"
    assert emphasised("lla (ridge=1): 1 task", ["lla", "lla (ridge=1)"]).startswith("lla")
