"""The page of costs as a reader meets it: what was timed, what ended, and what others disturbed."""

from __future__ import annotations

import json

import pandas as pd
import pyarrow as pa
from streamlit.testing.v1 import AppTest

from tests.dashboard.reader import Open, go, table, words
from tests.dashboard.stores import StoreBuilder


def test_cost_states_what_was_timed_and_never_hides_an_outcome(
    store: StoreBuilder, open_page: Open
) -> None:
    store.cost({"softmax": 2.0, "lla": 2.5}, oom={"lla": 1024})
    store.cost_timeout("none")
    page = go(open_page(), "Cost")
    assert "batch 1, 4 heads of 16, float32, on Example CPU, 2 threads" in words(page)
    numbers = table(page, "Latency").set_index(["Entry", "Length"])
    assert numbers.loc[("lla", 1024), "Outcome"] == "oom"
    assert numbers.loc[("lla", 1024), "Latency"] == "oom"
    assert numbers.loc[("softmax", 1024), "Latency"].endswith(" ms")
    ended = table(page, "Outcome", "Message")
    found = set(zip(ended["Entry"], ended["Phase"], ended["Length"], ended["Outcome"], strict=True))
    assert found == {
        ("lla", "forward", "1024", "oom"),
        ("lla", "forward + backward", "1024", "oom"),
        ("none", "all", "all", "timeout"),
    }


def charts_of(page: AppTest) -> dict[str, tuple[str, pd.DataFrame]]:
    """By name: the drawing of every chart, and the points that it is made of."""
    found = {}
    for chart in page.get("vega_lite_chart"):
        spec = json.loads(chart.proto.spec)
        frames = [pa.ipc.open_stream(d.data.data).read_pandas() for d in chart.proto.datasets]
        points = next(frame for frame in frames if "entry" in frame)
        found[spec["usermeta"]["embedOptions"]["downloadFileName"]] = chart.proto.spec, points
    return found


def test_disturbed_points_are_marked(store: StoreBuilder, open_page: Open) -> None:
    store.cost({"softmax": 2.0, "lla": 2.5}, disturbed={"lla": 512})
    page = go(open_page(), "Cost")
    found = table(page, "Latency").set_index(["Entry", "Length"])["Disturbed"]
    assert found.pop(("lla", 512)) == "1 of 3"
    assert set(found) == {"-"}
    assert "A ring marks 1 point disturbed" in words(page)
    for name, (spec, points) in charts_of(page).items():
        marked = points[points["ring"]]
        timed = not name.startswith("memory")  # neighbours take time, not memory
        assert list(zip(marked["entry"], marked["length"], strict=True)) == [("lla", 512)] * timed
        assert ("datum.ring" in spec) == timed
        assert ("Disturbed" in spec) == timed


def test_nothing_is_marked_where_nothing_was_disturbed(
    store: StoreBuilder, open_page: Open
) -> None:
    store.cost({"softmax": 2.0, "lla": 2.5})
    page = go(open_page(), "Cost")
    assert "Disturbed" not in table(page, "Latency")
    assert "A ring" not in words(page)
    assert not any("datum.ring" in spec for spec, _ in charts_of(page).values())


def test_the_phase_switch_shows_other_numbers(store: StoreBuilder, open_page: Open) -> None:
    store.cost({"softmax": 2.0, "lla": 2.5})
    page = go(open_page(), "Cost")
    forward = list(table(page, "Latency")["Latency"])
    [phase] = [c for c in page.segmented_control if c.label == "Phase"]
    assert phase.options == ["forward", "forward + backward"]
    phase.set_value("forward_backward").run()
    assert not page.exception
    assert list(table(page, "Latency")["Latency"]) != forward


def test_only_timeouts_is_still_a_cost_page(store: StoreBuilder, open_page: Open) -> None:
    store.cost_timeout("none")
    ended = table(go(open_page(), "Cost"), "Outcome", "Message")
    assert list(ended["Outcome"]) == ["timeout"]
