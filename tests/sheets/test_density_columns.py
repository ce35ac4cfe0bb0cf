"""The density of sparse entries in tables, which are as before where no entry has one."""

import pytest

from cab.benching.frame import wide_frame
from cab.benching.sheets import cost_sheets
from cab.schema import table_of
from cab.scoring.cost import axis, costs
from cab.scoring.curves import curves_of
from cab.scoring.efficiency import cost_points
from cab.scoring.quality import quality_board
from cab.scoring.read_shares import densities_of, mean_densities
from cab.scoring.results import current
from cab.sheets.costs import cost_sheet
from cab.sheets.metrics import metric_sheets
from cab.sheets.run_costs import run_cost_sheets
from cab.sheets.standings import board_sheet
from cab.track import Track
from tests.scoring.test_versions import HEADLINE, cost, quality

TRACK = Track("causal-self", "tiny", "cpu")
ENTRIES = ("psa", "softmax")


def results_of(density):
    """Quality on two tasks and costs at one length; of psa the densities, where asked for."""
    rows = []
    for n, entry in enumerate(ENTRIES):
        rows += quality(entry, "ab", value=1.0 + n)
        rows += cost(entry, (1.0 + n, 1.1 + n), environment="{}")
        rows += cost(entry, (0.5, 0.5), metric="latency_ratio", unit="1", environment="{}")
    if density:
        rows += quality("psa", "a", value=0.2, phase="analysis", metric="density", unit="1")
        rows += quality("psa", "b", value=0.4, phase="analysis", metric="density", unit="1")
        rows += cost("psa", (0.3, 0.3), metric="density", unit="1", environment="{}",
                     samples=[0.3])  # fmt: skip
    return current(table_of(rows).to_pandas(), defaults={}, installed=lambda name: ())


def titles(sheet):
    return [column.title for column in sheet.columns]


def words(sheet, entry, title="density"):
    (line,) = [line for line in sheet.lines if line.data["entry"] == entry]
    return line.shown[titles(sheet).index(title)]


def test_means_over_seeds_and_then_over_tasks():
    results = results_of(True)
    assert densities_of(results, TRACK) == {
        "psa": {"a": pytest.approx(0.21), "b": pytest.approx(0.41)}
    }
    assert mean_densities(results, TRACK) == {"psa": pytest.approx(0.31)}
    assert mean_densities(results, TRACK, ["b"]) == {"psa": pytest.approx(0.41)}
    assert mean_densities(results_of(False), TRACK) == {}


def sheets_of(results):
    board = quality_board(results, TRACK, HEADLINE)
    return [
        board_sheet(results, board, TRACK),
        cost_sheet(results, board, axis("latency"), TRACK),
        *run_cost_sheets(results, TRACK, ENTRIES),
    ]


def test_tables_have_a_column_where_an_entry_has_a_density_and_no_other_word_changes():
    shown = {"standings": "0.310", "costs": "0.300", "run": "0.300"}
    with_density, without = (sheets_of(results_of(density)) for density in (True, False))
    for sheet, plain, value in zip(with_density, without, shown.values(), strict=True):
        assert "density" not in titles(plain)
        assert all("density" not in line.data for line in plain.lines)
        place = titles(sheet).index("density")
        assert words(sheet, "psa") == value
        assert words(sheet, "softmax") == "-"
        kept = [n for n in range(len(sheet.columns)) if n != place]
        assert [titles(sheet)[n] for n in kept] == titles(plain)
        assert [line.of(kept).shown for line in sheet.lines] == [line.shown for line in plain.lines]
        assert sheet.sorted_by("density").lines[0].data["entry"] == "psa"


def test_costs_and_points_carry_it():
    results = results_of(True)
    points = {point.entry: point for point in cost_points(results, TRACK)}
    assert points["psa"].density.value == pytest.approx(0.3)
    assert points["softmax"].density.n == 0
    found = costs(results, TRACK, axis("latency")).density
    assert {entry: i.value for entry, i in found.items()} == {"psa": pytest.approx(0.3)}
    assert costs(results, TRACK, axis("parameters")).density == {}


def test_the_metric_has_a_leaderboard_of_its_own():
    sheets = metric_sheets(results_of(True), "density", TRACK)
    assert [sheet.about["task"] for sheet in sheets] == ["a", "b"]
    assert [line.data["entry"] for line in sheets[0].lines] == ["psa"]


def test_tables_of_a_bench_have_it():
    rows = results_of(True).select(kind="efficiency")
    (sheet,) = cost_sheets(curves_of(rows))
    assert titles(sheet)[-1] == "density"
    assert [line.shown[-1] for line in sheet.lines] == ["0.300", "-"]
    frame = wide_frame(curves_of(rows)).set_index("attention")
    assert frame.loc["psa", "density"] == pytest.approx(0.3)
    (plain,) = cost_sheets(curves_of(results_of(False).select(kind="efficiency")))
    assert "density" not in titles(plain)
