"""Samples side by side, and scores of entries that have no place on the leaderboard."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from cab.artifact import Artifact
from cab.scoring.results import load_results
from cab.store import ResultStore
from tests.dashboard.reader import Open, go, table, words
from tests.dashboard.stores import CLEAR, StoreBuilder


def test_samples_stand_side_by_side(store: StoreBuilder, open_page: Open, tmp_path: Path) -> None:
    store.quality(CLEAR)
    results = ResultStore(tmp_path / "results")
    rows = load_results(results).rows
    for attention in ("softmax", "lla"):
        own = rows[(rows["attention"] == attention) & (rows["task"] == "summarization")]
        picture = Image.new("L", (2, 2))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        results.attach(
            own[own["seed"] == 0]["cell"].iloc[0],
            [
                Artifact("summaries", "txt", "What it writes.", f"by {attention}".encode()),
                Artifact("map", "png", "Where it looks.", buffer.getvalue()),
            ],
        )
    page = go(open_page(), "Samples")
    assert {block.value for block in page.code} == {"by softmax", "by lla"}
    assert "What it writes." in words(page)
    assert "Where it looks." in words(page)


def test_a_folder_without_samples_says_how_to_get_some(
    store: StoreBuilder, open_page: Open
) -> None:
    store.quality(CLEAR)
    assert "No samples" in words(go(open_page(), "Samples"))


def test_an_entry_on_probes_alone_keeps_its_scores(store: StoreBuilder, open_page: Open) -> None:
    known = {name: CLEAR["summarization"][name] for name in ("softmax", "none")}
    store.quality({"summarization": known, "test-time-regression": CLEAR["tts"]})
    page = open_page()
    [task] = [box for box in page.selectbox if box.label == "Task"]
    task.set_value("test-time-regression").run()
    assert not page.exception
    assert set(table(page, "Entry", "Seeds")["Entry"]) == set(CLEAR["tts"])
