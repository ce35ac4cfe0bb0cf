"""What the board can tell, on the leaderboard's page."""

from __future__ import annotations

from pathlib import Path

import pytest

from cab.store import ResultStore
from dashboard.resolution import DETAILS
from tests.dashboard.reader import Open, choose, leaderboard, words
from tests.dashboard.stores import CLEAR, StoreBuilder
from tests.scoring.test_short_runs import LOSSES, TURNED, rows_at


def test_the_paragraph_and_its_details_stand_below_the_table(
    store: StoreBuilder, open_page: Open
) -> None:
    store.quality(CLEAR)
    page = open_page()
    said = words(page)
    assert "What this board can tell: 4 ranked entries, 2 tasks, 3 seeds." in said
    assert "Of 3 adjacent ranks the data separate 2 on these tasks (67 %)" in said
    [details] = [e for e in page.expander if e.label == DETAILS]
    tasks, smallest = (frame.value for frame in details.dataframe)
    assert list(tasks["Task"]) == ["summarization", "tts"]
    assert (tasks["Signal to noise"] > 10).all()
    # linear-elu leads by tts alone, and without it is the last of three.
    assert list(tasks["Pairs that swap"]) == ["0/3", "2/3"]
    assert list(smallest["Where"]) == ["on these tasks", "in general"]
    assert 0 < smallest["Two entries"].iloc[0] < smallest["Two entries"].iloc[1]
    assert "Characters: row over column, in the order of ranks" in words(page)


def test_the_choice_of_tasks_is_that_of_the_table(store: StoreBuilder, open_page: Open) -> None:
    store.quality(CLEAR)
    page = choose(open_page(), "Tasks", "tts")
    assert "4 ranked entries, 1 task, 3 seeds" in words(page)
    assert "one task says nothing of others" in words(page)


@pytest.mark.parametrize("entries", [("softmax",), ("softmax", "lla")])
def test_one_seed_or_one_entry(store: StoreBuilder, open_page: Open, entries: tuple[str]) -> None:
    store.quality({"tts": {e: CLEAR["tts"][e] for e in entries}}, seeds=1)
    page = open_page()
    assert ("With a single seed nothing tells" in words(page)) is (len(entries) > 1)
    assert (DETAILS in [e.label for e in page.expander]) is (len(entries) > 1)


def test_runs_at_other_lengths_are_told_of(tmp_path: Path, open_page: Open) -> None:
    made = ResultStore(tmp_path / "results")
    made.prepare()
    made.append([*rows_at(1, LOSSES), *rows_at(4, TURNED)])
    page = open_page()
    assert "Do short runs tell? RANKS TURN OVER at 4x the steps" in words(page).replace("*", "")
    [details] = [e for e in page.expander if e.label == DETAILS]
    told = details.dataframe[2].value
    assert list(told["Turned over"]) == ["3 of 10", "3 of 10"]
    assert len(leaderboard(page)) == len(LOSSES)
