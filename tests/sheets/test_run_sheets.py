"""The tables of a run: every entry, metric and length in full at any width, and no interval that
says nothing.
"""

from __future__ import annotations

import json
import math

import pytest

from cab.cli.console import console
from cab.cli.formats import print_sheet
from cab.report.album import Album
from cab.report.page import page
from cab.schema import table_of
from cab.scoring.efficiency import cost_points
from cab.scoring.results import current
from cab.sheets.run_costs import run_cost_sheets
from cab.sheets.scored import scored_sheet
from cab.sheets.words import UNSURE, byte_size, duration, factor_range, times
from cab.track import Track
from tests.scoring.test_scoring import rows_of
from tests.scoring.test_versions import cost

TRACK = Track("causal-self", "tiny", "cpu")
MANY = ["lla", "performer", "softmax-exact", "linear-elu", "abc", "softmax", "none"]
WIDTHS = [40, 80, 100, 120, 200]


def scored(entries):
    rows = []
    for n, entry in enumerate(entries):
        scores = {(entry, task): [n + 1.234 + 0.01 * s for s in range(3)] for task in ("a", "b")}
        rows += rows_of(scores)
    return current(table_of(rows).to_pandas(), defaults={}, installed=lambda name: ())


def timed(entries, held_up=()):
    """Costs of three processes, the last of which is held up a thousandfold for some entries."""
    rows = []
    for n, entry in enumerate(entries):
        for phase in ("forward", "forward_backward"):
            for length in (256, 1024):
                base = (n + 1) * 1.234e-3 * length / 256
                slow = 1000.0 if entry in held_up else 1.02
                for metric, unit in (("latency", "s"), ("latency_ratio", "1"),
                                     ("peak_memory", "B")):  # fmt: skip
                    scale = {"s": 1.0, "1": 1e3, "B": 1e9}[unit]
                    noise = 1.02 if unit == "B" else slow
                    seconds = tuple(scale * base * factor for factor in (1.0, 1.01, noise))
                    environment = json.dumps({"noisy": entry in held_up})
                    rows += cost(entry, seconds, phase=phase, length_q=length, length_k=length,
                                 metric=metric, unit=unit, environment=environment)  # fmt: skip
    return current(table_of(rows).to_pandas(), defaults={}, installed=lambda name: ())


@pytest.fixture
def printed(monkeypatch, capsys):
    def show(sheet, width):
        monkeypatch.setattr(console, "width", width)
        print_sheet(sheet)
        return capsys.readouterr().out

    return show


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("count", [1, 3, 7])
def test_no_score_is_cut_at_any_width(printed, width, count):
    entries = MANY[:count]
    sheet = scored_sheet(scored(entries), TRACK, entries, width)
    text = printed(sheet, width)
    for n, entry in enumerate(entries):
        assert entry in text
        assert text.count(f"{n + 1.244:.3f} ± 0.025") == 2
    assert "…" not in text


def test_entries_stand_side_by_side_where_there_is_room():
    results = scored(MANY)
    wide = scored_sheet(results, TRACK, MANY, 200)
    assert [column.title for column in wide.columns] == ["metric", *MANY]
    narrow = scored_sheet(results, TRACK, MANY, 80)
    assert [line.data["entry"] for line in narrow.lines] == MANY * 2
    assert narrow.width <= 80


@pytest.mark.parametrize("width", WIDTHS)
def test_what_is_separated_from_all_others_stands_out(width):
    results = scored(MANY)
    sheet = scored_sheet(results, TRACK, MANY, width)
    strong = {line.shown[n] for line in sheet.lines for n in line.strong} - {"a", "b"}
    assert strong == {"1.244 ± 0.025", "7.244 ± 0.025"}  # task b is better where it is higher


@pytest.mark.parametrize("width", WIDTHS)
def test_no_cost_is_cut_at_any_width(printed, width):
    timings = [entry for entry in MANY if entry != "none"]
    results = timed(timings)
    sheets = run_cost_sheets(results, TRACK, timings)
    assert len(sheets) == 2
    for sheet, phase in zip(sheets, ("forward", "forward_backward"), strict=True):
        assert [line.data["entry"] for line in sheet.lines] == timings * 2
        lines = [line.split("  ") for line in printed(sheet, width).splitlines()]
        shown = {tuple(word.strip() for word in line if word.strip()) for line in lines}
        for point in cost_points(results, TRACK):
            if point.phase == phase:
                ratio = factor_range(point.latency_ratio).replace(" ..", "x ..") + "x"
                words = {
                    f"{point.length:,}", point.entry, duration(point.latency.value),
                    times(point.latency_ratio.value), ratio, byte_size(point.memory.value),
                }  # fmt: skip
                assert any(words <= set(line) for line in shown), words


def test_an_entry_that_was_held_up_has_no_interval_and_the_table_says_why():
    timings = ["lla", "softmax"]
    sheets = run_cost_sheets(timed(timings, held_up=["lla"]), TRACK, timings)
    for sheet in sheets:
        place = [column.title for column in sheet.columns].index("to softmax, 95 %")
        found = {line.data["entry"]: line.shown[place] for line in sheet.lines}
        assert found["lla"] == UNSURE
        assert found["softmax"] != UNSURE
    notes = sheets[-1].notes
    assert any(note.startswith("not known: others kept the machine busy") for note in notes)
    assert any("disturbed" in note and "--retry disturbed" in note for note in notes)
    quiet = run_cost_sheets(timed(timings), TRACK, timings)[-1].notes
    assert not any("not known" in note or "disturbed" in note for note in quiet)


def test_a_report_names_disturbed_points():
    timings = ["lla", "softmax"]
    for held_up in ([], ["lla"]):
        results = timed(timings, held_up)
        text = page(results, results.settings(), "a folder", album=Album())
        assert ("disturbed by what else ran here: 12 measurements" in text) == bool(held_up)


@pytest.mark.parametrize("name", ["latency", "memory", "latency-ratio"])
def test_no_axis_is_stretched_by_what_is_not_known(name):
    from dashboard import cost as shown
    from dashboard.looks import EntryLooks

    timings = ["lla", "softmax"]
    results = timed(timings, held_up=["lla"])
    points = [p for p in cost_points(results, TRACK) if p.phase == "forward"]
    looks = EntryLooks([(entry, entry) for entry in timings])
    drawn = (shown.LATENCY, shown.MEMORY, shown.ratio_of(points))
    quantity = {quantity.name: quantity for quantity in drawn}[name]
    chart = shown._lines(points, quantity, looks).to_dict()
    domains = [
        layer["encoding"]["y"]["scale"]["domain"]
        for layer in chart["layer"]
        if "scale" in layer["encoding"].get("y", {})
    ]
    assert domains
    values = [quantity.of(p).value for p in points]
    for low, high in domains:
        assert min(values) / 10 <= low <= high <= max(values) * 10
    assert math.isfinite(max(values))
