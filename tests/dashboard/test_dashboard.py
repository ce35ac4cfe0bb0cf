"""The page as a reader meets it: Streamlit's own test runner on results folders with known rows."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from cab.patterns import Pattern
from cab.scoring.results import load_results
from cab.store import ResultStore
from dashboard.provenance import to_csv
from dashboard.training import curves_frame
from tests.dashboard.reader import APP, SECTIONS, Open, choose, go, leaderboard, ranks, table, words
from tests.dashboard.stores import CLEAR, CURVE, SEEDS, StoreBuilder


def test_the_known_winner_is_first_and_the_scores_are_those_that_were_written(
    store: StoreBuilder, open_page: Open
) -> None:
    store.quality(CLEAR)
    board = leaderboard(open_page())
    assert list(board["Entry"]) == ["linear-elu", "lla", "softmax", "none"]
    assert board["Rank"].iloc[0] == "1"
    for task, expected in CLEAR.items():
        for entry, value in zip(board["Entry"], board[task], strict=True):
            assert value == pytest.approx(expected[entry], abs=0.02)
    mean = sum(scores["linear-elu"] for scores in CLEAR.values()) / len(CLEAR)
    assert board["Index"].iloc[0] == pytest.approx(mean, abs=0.02)
    assert " .. " in board["95 % interval"].iloc[0]


def test_overlapping_intervals_are_marked_as_ties(store: StoreBuilder, open_page: Open) -> None:
    scores = {"softmax": 0.0, "lla": 0.40, "linear-elu": 0.41, "none": -0.9}
    store.quality({"summarization": scores}, noise=0.05)
    assert [rank for rank, _ in ranks(open_page())] == ["1", "=2", "3", "4"]


def test_the_pattern_switch_shows_another_leaderboard(store: StoreBuilder, open_page: Open) -> None:
    store.quality({"summarization": {"softmax": 0.0, "lla": 0.3, "none": -0.5}})
    store.quality(
        {"summarization": {"softmax": 0.0, "linear-elu": 0.3, "none": -0.5}}, pattern="causal-self"
    )
    page = open_page()
    pattern = page.segmented_control(key="pattern")
    assert pattern.options == [
        "noncausal-self (NS)", "causal-self (CS)", "noncausal-cross (NC)", "causal-cross (CC)"
    ]  # fmt: skip
    assert pattern.value == "causal-self"
    assert ranks(page)[0] == ("1", "linear-elu")
    page.segmented_control(key="pattern").set_value(Pattern.CAUSAL_CROSS).run()
    assert ranks(page)[0] == ("1", "lla")
    page.segmented_control(key="pattern").set_value(Pattern.NONCAUSAL_CROSS).run()
    assert "No quality results" in words(page)
    assert "cab run --attn all --pattern noncausal-cross" in words(page)


def test_scales_never_share_a_table(store: StoreBuilder, open_page: Open) -> None:
    store.quality({"summarization": {"softmax": 0.0, "lla": 0.3, "none": -0.5}})
    store.quality({"summarization": {"softmax": 0.0, "linear-elu": 0.2}}, scale="small")
    page = open_page()
    assert {entry for _, entry in ranks(page)} == {"softmax", "lla", "none"}
    choose(page, "Scale", "small")
    assert {entry for _, entry in ranks(page)} == {"softmax", "linear-elu"}
    assert "causal-cross (small, cpu)" in words(page)


def test_scores_stand_beside_references_and_analyses(store: StoreBuilder, open_page: Open) -> None:
    store.quality({"summarization": CLEAR["summarization"]})
    title = "Analyses of the trained models"
    assert title not in [e.label for e in open_page().expander]
    store.described("summarization")
    page = open_page()
    assert "oracle: nll 1.00" in words(page)
    [analyses] = [e for e in page.expander if e.label == title]
    [frame] = [d.value for d in analyses.dataframe]
    assert frame.set_index("Entry").loc["softmax", "attention_entropy (nat)"] == "2.50"
    assert leaderboard(page)["Entry"].iloc[0] == "lla"


def test_probes_are_named_beside_the_index_of_other_tasks(
    store: StoreBuilder, open_page: Open
) -> None:
    store.quality({**CLEAR, "test-time-regression": CLEAR["tts"]})
    page = open_page()
    assert "test-time-regression" not in leaderboard(page).columns
    assert "Probes are ranked on their own (choose them under Tasks): test-time" in words(page)
    choose(page, "Tasks", "summarization", "test-time-regression")
    assert "test-time-regression" in leaderboard(page).columns


def test_the_task_filter_changes_the_index_and_says_so(
    store: StoreBuilder, open_page: Open
) -> None:
    store.quality(CLEAR)
    page = open_page()
    before = leaderboard(page).set_index("Entry")["Index"]
    choose(page, "Tasks", "summarization")
    after = leaderboard(page)
    assert after["Entry"].iloc[0] == "lla"
    assert "tts" not in after.columns
    assert after.set_index("Entry")["Index"]["linear-elu"] < 0 < before["linear-elu"]
    assert "Index over the chosen tasks only: summarization" in words(page).replace("*", "")


def test_the_grade_filter_keeps_controls(store: StoreBuilder, open_page: Open) -> None:
    store.quality(CLEAR)
    page = choose(open_page(), "Grade", "faithful")
    # Two tasks that disagree: what differs here may not differ on other tasks.
    assert ranks(page) == [("~3", "softmax"), ("~4", "none")]
    choose(page, "Grade", "extension")
    assert len(ranks(page)) == 4
    assert "Ranks count the hidden entries too" in words(page)


def test_the_family_filter_keeps_controls(store: StoreBuilder, open_page: Open) -> None:
    store.quality(CLEAR)
    page = choose(open_page(), "Family", "linear")
    assert {entry for _, entry in ranks(page)} == {"softmax", "linear-elu", "none"}
    assert set(leaderboard(page)["Family"]) > {"linear"}
    assert "Ranks count the hidden entries too" in words(page)


def test_the_attention_filter_hides_the_others_in_every_section(
    store: StoreBuilder, open_page: Open
) -> None:
    store.quality(CLEAR)
    store.cost({"softmax": 2.0, "lla": 2.2})
    page = choose(open_page(), "Attention", "lla")
    assert [entry for _, entry in ranks(page)] == ["lla"]
    assert set(table(go(page, "Cost"), "Latency")["Entry"]) == {"lla"}
    assert set(table(go(page, "Training"), "Time (s)")["Entry"]) == {"lla"}


def test_a_task_that_does_not_measure_attention_is_left_out_with_its_numbers(
    store: StoreBuilder, open_page: Open
) -> None:
    same = {"softmax": 0.0, "lla": 0.01, "none": 0.0}
    store.quality({**CLEAR, "summarization": same}, noise=0.05)
    page = open_page()
    assert "summarization" not in leaderboard(page).columns
    assert "summarization** is left out: softmax" in words(page)
    assert "±" in words(page)
    choose(page, "Tasks", "summarization")
    assert "No index" in words(page)
    assert set(table(page, "Seeds")["Entry"]) == {"softmax", "lla", "none"}


def test_missing_and_failed_cells_are_named(store: StoreBuilder, open_page: Open) -> None:
    regression = {k: v for k, v in CLEAR["tts"].items() if k != "linear-elu"}
    store.quality({"summarization": CLEAR["summarization"], "tts": regression})
    store.failed("linear-elu", "tts", "diverged", "the loss is nan at step 3")
    page = open_page()
    assert ranks(page)[-1] == ("", "linear-elu")
    assert "linear-elu** has no index" in words(page)
    ended = table(page, "Outcome")
    assert list(ended["Outcome"]) == ["diverged"]
    assert list(ended["Seeds"]) == ["0, 1, 2"]


def test_a_single_seed_has_a_rank_but_no_interval(store: StoreBuilder, open_page: Open) -> None:
    store.quality({"summarization": {"softmax": 0.0, "lla": 0.3, "none": -0.5}}, seeds=1)
    page = open_page()
    assert set(leaderboard(page)["95 % interval"]) == {"-"}
    assert "No interval with a single seed" in words(page)
    assert "Not enough seeds of softmax and none" in words(page)


def test_raw_scores_have_mean_interval_and_seeds(store: StoreBuilder, open_page: Open) -> None:
    store.quality(CLEAR)
    shown = table(open_page(), "Seeds", "nll (nat/token), lower is better")
    assert set(shown["Seeds"]) == {SEEDS}
    softmax = shown.set_index("Entry")["nll (nat/token), lower is better"]["softmax"]
    mean, _, half = softmax.partition(" ± ")
    assert float(mean) == pytest.approx(4.0, abs=0.1)
    assert float(half) > 0


def test_loss_curves_have_a_line_per_seed_and_one_for_the_mean(
    store: StoreBuilder, open_page: Open, tmp_path: Path
) -> None:
    store.quality({"summarization": {"softmax": 0.0, "lla": 0.3}})
    page = go(open_page(), "Training")
    assert list(table(page, "Checkpoint (step)")["Checkpoint (step)"]) == ["60", "60"]
    rows = load_results(ResultStore(tmp_path / "results")).rows
    curves = curves_frame(rows)
    assert len(curves) == 2 * (SEEDS + 1) * CURVE
    assert curves["progress"].max() == 1.0
    lla = curves[curves["entry"] == "lla"].pivot(index="progress", columns="seed", values="loss")
    assert lla[["0", "1", "2"]].mean(axis=1).to_numpy() == pytest.approx(lla["mean"].to_numpy())


def test_entry_details_come_from_the_registry(store: StoreBuilder, open_page: Open) -> None:
    store.quality(CLEAR)
    page = go(open_page(), "Entries")
    page.selectbox(key="entry").set_value("lla").run()
    assert "Cov_i" in page.code[0].value
    assert "arxiv.org/abs/2510.01450" in words(page)
    options = [t.value for t in page.table if "Default" in t.value.columns]
    assert "ridge" in options[0].index


def test_a_hybrid_is_an_entry_like_any_other(store: StoreBuilder, open_page: Open) -> None:
    name = "lla:1,linear-elu:3"
    scores = {task: own | {name: 0.2} for task, own in CLEAR.items()}
    store.quality(scores)
    page = choose(open_page(), "Family", "hybrid")
    assert {entry for _, entry in ranks(page)} == {name, "softmax", "none"}
    page = go(page, "Entries")
    page.selectbox(key="entry").set_value(name).run()
    assert not page.exception
    assert "part i mod 4" in page.code[0].value
    assert "L^2 D^2 in 1 of 4 layers" in words(page)


def test_charts_are_named_say_their_track_and_commit_and_are_offered_as_files(
    store: StoreBuilder, open_page: Open
) -> None:
    store.quality(CLEAR)
    store.cost({"softmax": 2.0, "lla": 1.0})
    page = open_page()
    names: list[str] = []
    for section in ("Quality", "Cost", "Training"):
        go(page, section)
        charts = [json.loads(chart.proto.spec) for chart in page.get("vega_lite_chart")]
        assert charts
        for chart in charts:
            names.append(chart["usermeta"]["embedOptions"]["downloadFileName"])
            assert chart["title"]["subtitle"][1].startswith("causal-cross (tiny, cpu); cab 0.1.0, ")
        saved = [str(b.help) for b in page.get("download_button") if b.label in ("SVG", "PDF")]
        shown = names[-len(charts) :]
        assert saved == [f"Save as {name}.{end}" for name in shown for end in ("svg", "pdf")]
    assert len(set(names)) == len(names)
    assert {
        "index-causal-cross-tiny-cpu",
        "latency-forward-causal-cross-tiny-cpu",
        "memory-forward-causal-cross-tiny-cpu",
        "latency-ratio-forward-causal-cross-tiny-cpu",
    } <= set(names)


def test_provenance_counts_sources_and_offers_the_rows(
    store: StoreBuilder, open_page: Open, tmp_path: Path
) -> None:
    store.quality(CLEAR)
    store.cost({"softmax": 2.0})
    page = open_page()
    sources = page.table[0].value
    assert sources.loc["Suite version", "Value"] == "0.1.0"
    assert sources.loc["Device", "Value"] == "Example CPU"
    assert "of 1 run in this choice" in words(page)
    assert page.json[0].value == '{"torch": "2.9.0"}'
    offered = [button.label for button in page.get("download_button")]
    assert offered.count("Download these rows (CSV)") == 1
    rows = load_results(ResultStore(tmp_path / "results")).rows
    again = pd.read_csv(io.BytesIO(to_csv(rows)))
    assert len(again) == len(rows)
    assert again["value"].to_numpy() == pytest.approx(rows["value"].to_numpy(), nan_ok=True)


def test_an_empty_store_says_how_to_fill_it(open_page: Open) -> None:
    page = open_page()
    assert "No results in" in page.info[0].value
    assert "cab run --attn all --pattern causal-cross --out" in page.info[0].value


def test_an_unreadable_file_is_one_line(
    store: StoreBuilder, open_page: Open, tmp_path: Path
) -> None:
    store.quality({"summarization": {"softmax": 0.0}})
    (tmp_path / "results" / "broken.parquet").write_bytes(b"PAR1 cut off")
    page = open_page()
    assert len(page.error) == 1
    assert "broken.parquet is not readable" in words(page)
    assert "\n" not in page.error[0].value


def test_a_file_in_place_of_the_folder_is_one_line(open_page: Open, tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    assert "is a file, not a results folder" in words(open_page())


def test_a_store_with_only_costs_opens_in_every_section(
    store: StoreBuilder, open_page: Open
) -> None:
    store.cost({"softmax": 2.0, "lla": 2.5})
    page = open_page()
    assert "No quality results" in words(page)
    assert "--measure quality" in words(page)
    assert "No training runs" in words(go(page, "Training"))
    assert len(table(go(page, "Cost"), "Latency")) == 6


@pytest.mark.parametrize("section", SECTIONS)
def test_a_store_with_only_quality_opens_in_every_section(
    store: StoreBuilder, open_page: Open, section: str
) -> None:
    store.quality(CLEAR)
    assert words(go(open_page(), section))


def test_new_files_are_seen_without_a_restart(store: StoreBuilder, open_page: Open) -> None:
    store.quality({"summarization": {"softmax": 0.0, "none": -0.5}})
    page = open_page()
    assert len(ranks(page)) == 2
    store.quality({"summarization": {"lla": 0.3}})
    page.run()
    assert ranks(page)[0] == ("1", "lla")


def test_the_page_never_imports_torch(store: StoreBuilder, tmp_path: Path) -> None:
    store.quality(CLEAR)
    store.cost({"softmax": 2.0, "lla": 2.5})
    code = f"""
import os, sys
os.environ["CAB_RESULTS"] = {str(tmp_path / "results")!r}
from streamlit.testing.v1 import AppTest
page = AppTest.from_file({str(APP)!r}, default_timeout=60).run()
for section in {SECTIONS!r}:
    page.segmented_control(key="section").set_value(section).run()
    assert not page.exception, page.exception
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
