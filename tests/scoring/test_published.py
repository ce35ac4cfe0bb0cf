"""CAB's published tables: complete, marked, never mixed with measured rows."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from cab.errors import UnknownEntryError
from cab.scoring.compositional import CORRECTED_CONSTANTS
from cab.scoring.published import (
    FOLDER,
    efficiency_lengths,
    load_published,
    marks,
    published_board,
    published_names,
)
from cab.scoring.results import load_results
from cab.store import ResultStore

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rows():
    return load_published("cab2023")


def test_the_file_is_what_its_script_builds():
    done = subprocess.run([sys.executable, ROOT / "docs" / "build_published.py", "--check"])
    assert done.returncode == 0


def test_every_transcribed_number_is_there_as_printed(rows):
    source = pd.read_csv(FOLDER / "cab2023.csv")
    assert len(rows) == len(source) == 411
    assert sorted(rows["value"]) == sorted(source["value"])
    assert set(rows["label"]) == {"published"}
    assert rows["source"].str.startswith("Shark-NLP/CAB@").all()


def test_errata_are_marked_and_only_applied_when_asked_for(rows):
    corrected = load_published("cab2023+errata")
    assert len(corrected) == len(rows)
    cell = {"pattern": "causal-self", "attention": "ABC", "metric": "PPL"}

    def value(table):
        for column, word in cell.items():
            table = table[table[column] == word]
        return table["value"].item(), table["message"].item()

    printed, marked = value(rows)
    assert printed == 29.13
    assert "T2" in marked
    number, said = value(corrected)
    assert number == 31.53
    assert "in place of the printed 29.13" in said
    numbers = {mark.partition(":")[0] for mark in marks(rows)}
    assert numbers == {"T2", "T3", "T4", "T5", "T9", "C1", "C14"}


def test_every_mark_is_an_entry_of_the_errata(rows):
    errata = (ROOT / "ERRATA.md").read_text(encoding="utf-8")
    for mark in marks(rows):
        assert f"| {mark.partition(':')[0]} |" in errata


def test_the_corrected_table_gives_the_printed_index_of_abc():
    found = {
        s.attention: s for s in published_board(load_published("cab2023+errata"), "causal-self")
    }
    assert found["ABC"].tasks["LM"] == pytest.approx(-1.117, abs=1e-3)
    assert found["ABC"].average == pytest.approx(found["ABC"].printed, abs=2e-3)


def test_boards_are_in_the_order_of_cabs_leaderboard(rows):
    for pattern in ("noncausal-self", "noncausal-cross", "causal-cross"):
        standings = [s for s in published_board(rows, pattern) if s.rank]
        printed = [s.printed for s in standings]
        assert printed == sorted(printed, reverse=True)
        assert all(s.average == pytest.approx(s.printed, abs=0.02) for s in standings)


def test_missing_cells_have_no_rank(rows):
    last = published_board(rows, "noncausal-self", CORRECTED_CONSTANTS)[-1]
    assert (last.attention, last.rank, last.missing) == ("S4D", None, ("Sum",))


def test_efficiency_lengths(rows):
    found = {(x.attention, x.quantity): x for x in efficiency_lengths(rows)}
    assert round(found["ABC", "time"].recomputed) == found["ABC", "time"].printed == 1877
    assert round(found["ABC", "memory"].recomputed) == found["ABC", "memory"].printed == 70
    assert len(found) == 18


def test_published_rows_are_never_ranked_with_measured_ones():
    assert load_results(ResultStore(FOLDER), {}).rows.empty


def test_unknown_tables():
    assert published_names() == ["cab2023", "cab2023+errata"]
    with pytest.raises(UnknownEntryError, match="did you mean cab2023"):
        load_published("cab2032")
