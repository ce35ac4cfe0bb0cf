"""The page with the reference results beside the user's own, and without them."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from cab.schema import Row
from tests.dashboard.reader import SECTIONS, Open, choose, go, leaderboard, table, words
from tests.dashboard.stores import CLEAR, StoreBuilder


@pytest.fixture
def reference(tmp_path: Path) -> StoreBuilder:
    """Writes where the page looks for the reference results."""
    return StoreBuilder(tmp_path / "reference")


def switch(page: AppTest, on: bool) -> AppTest:
    page.toggle(key="reference").set_value(on).run()
    assert not page.exception
    return page


def test_without_own_results_the_page_shows_the_reference_and_says_so(
    reference: StoreBuilder, open_page: Open
) -> None:
    reference.quality(CLEAR)
    page = open_page()
    assert set(leaderboard(page)["Label"]) == {"reference"}
    assert "these are the reference results that come with cab" in words(page)
    assert "reference: measured by the project on Example CPU, 2 threads" in words(page)
    switch(page, False)
    assert "No results in" in page.info[0].value
    assert not page.dataframe


@pytest.mark.parametrize(("environment", "on"), [("on", True), ("off", False), (None, True)])
def test_the_switch_begins_as_the_command_was_started(
    reference: StoreBuilder,
    open_page: Open,
    monkeypatch: pytest.MonkeyPatch,
    environment: str | None,
    on: bool,
) -> None:
    reference.quality(CLEAR)
    if environment:
        monkeypatch.setenv("CAB_REFERENCE", environment)
    assert open_page().toggle(key="reference").value is on


def test_own_rows_stand_beside_the_reference(
    store: StoreBuilder, reference: StoreBuilder, open_page: Open
) -> None:
    reference.quality(CLEAR)
    store.quality({task: {"lla": 1.0} for task in CLEAR})
    board = leaderboard(open_page()).set_index("Entry")
    assert board["Label"].to_dict() == {
        "lla": "self-reported", "softmax": "reference", "linear-elu": "reference",
        "none": "reference",
    }  # fmt: skip
    assert board.loc["lla", "Index"] == pytest.approx(1.0, abs=0.02)
    assert list(switch(open_page(), False).dataframe[0].value["Entry"]) == ["lla"]


def test_the_label_filter_keeps_controls(
    store: StoreBuilder, reference: StoreBuilder, open_page: Open
) -> None:
    reference.quality(CLEAR)
    store.quality({task: {"lla": 1.0} for task in CLEAR})
    page = choose(open_page(), "Label", "self-reported")
    assert set(leaderboard(page)["Entry"]) == {"lla", "softmax", "none"}
    choose(page, "Label", "reference")
    assert set(leaderboard(page)["Entry"]) == {"linear-elu", "softmax", "none"}
    assert "Ranks count the hidden entries too" in words(page)


def test_a_label_in_a_file_is_not_believed(
    store: StoreBuilder, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Row.__init__

    def forged(self: Row, **fields: object) -> None:
        original(self, **{**fields, "label": "verified"})  # type: ignore[arg-type]  # fields of mixed types

    monkeypatch.setattr(Row, "__init__", forged)
    store.quality(CLEAR)
    page = open_page()
    assert set(leaderboard(page)["Label"]) == {"self-reported"}
    assert "verified" not in words(page)


def test_costs_are_of_the_users_machine(
    store: StoreBuilder, reference: StoreBuilder, open_page: Open
) -> None:
    reference.cost({"softmax": 2.0, "lla": 2.5, "linear-elu": 1.0})
    page = go(open_page(), "Cost")
    assert set(table(page, "Latency")["Label"]) == {"reference"}
    assert set(table(page, "Latency")["Entry"]) == {"softmax", "lla", "linear-elu"}
    store.cost({"softmax": 2.0, "lla": 2.5})
    page.run()
    shown = table(page, "Latency")
    assert set(shown["Label"]) == {"self-reported"}
    assert set(shown["Entry"]) == {"softmax", "lla"}
    assert set(shown["Processes"]) == {3}
    assert "Left out, measured elsewhere: linear-elu" in words(page)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_opens_on_the_reference_alone(
    reference: StoreBuilder, open_page: Open, section: str
) -> None:
    reference.quality(CLEAR)
    reference.cost({"softmax": 2.0})
    assert words(go(open_page(), section))
