"""docs/scoring.md: what it says of runs at other numbers of steps follows from stored rows."""

import importlib
import sys
from pathlib import Path

import pytest

from cab.store import ResultStore
from tests.scoring.test_short_runs import LOSSES, TURNED, rows_at

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(DOCS))
    try:
        yield importlib.import_module("build_short_runs")
    finally:
        sys.path.remove(str(DOCS))


@pytest.fixture
def store(tmp_path):
    found = ResultStore(tmp_path / "results")
    found.prepare()
    return found


def test_only_what_stands_between_the_marks_is_written(script, store):
    written = script.TARGET.read_text(encoding="utf-8")
    head, tail = written.split(script.FIRST)[0], written.split(script.LAST)[1]
    store.append(rows_at(1, LOSSES))
    assert script.NOTHING in script.page(written, store)
    store.append(rows_at(4, TURNED))
    text = script.page(written, store)
    assert script.NOTHING not in text
    assert "RANKS TURN OVER at 4x the steps: of 10 pairs" in text
    assert "| 1x, 4x | all |" in text
    assert text.startswith(head)
    assert text.endswith(tail)
    assert script.page(text, store) == text


def test_a_stale_page_fails_the_check(script, store, monkeypatch, tmp_path, capsys):
    store.append([*rows_at(1, LOSSES), *rows_at(4, TURNED)])
    page = tmp_path / "scoring.md"
    page.write_text(script.TARGET.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(script, "TARGET", page)
    monkeypatch.setattr(script, "reference_store", lambda: store)
    monkeypatch.setattr(sys, "argv", ["build_short_runs.py", "--check"])
    assert script.main() == 1
    assert "stale" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["build_short_runs.py"])
    assert script.main() == 0
    monkeypatch.setattr(sys, "argv", ["build_short_runs.py", "--check"])
    assert script.main() == 0
