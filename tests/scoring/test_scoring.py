"""The index, its intervals, and which rows count."""

import math
from datetime import UTC, datetime, timedelta

import pytest

from cab.schema import Row, table_of
from cab.scoring.cost import AXES, costs
from cab.scoring.efficiency import cost_points
from cab.scoring.intervals import estimate_general, estimate_here, mean_interval, process_interval
from cab.scoring.quality import quality_board
from cab.scoring.results import current, load_costs, load_results, load_scores
from cab.store import ResultStore
from cab.track import Track

START = datetime(2026, 1, 1, tzinfo=UTC)
HEADLINE = {"a": ["loss"], "b": ["score"], "flat": ["loss"]}


def rows_of(scores, **fields):
    """{(entry, task): per-seed values} to rows; task b is higher-is-better."""
    rows = []
    for (entry, task), values in scores.items():
        for seed, value in enumerate(values):
            base = {
                "cell": f"{entry}{task}{seed}{sorted(fields.items())}",
                "recorded_at": START,
                "run_id": "r",
                "kind": "quality",
                "attention": entry,
                "attention_hash": "h",
                "attention_options": "{}",
                "grade": "faithful",
                "pattern": "causal-self",
                "task": task,
                "task_hash": "t",
                "data_hash": "d",
                "scale": "tiny",
                "device": "cpu",
                "seed": seed,
                "phase": "eval",
                "metric": "score" if task == "b" else "loss",
                "value": value,
                "higher_is_better": task == "b",
            }
            rows.append(Row(**{**base, **fields}))
    return rows


def board_of(rows, **fields):
    results = current(table_of(rows).to_pandas(), defaults={})
    track = Track(**{"pattern": "causal-self", "scale": "tiny", "device": "cpu", **fields})
    return quality_board(results, track, HEADLINE)


SCORES = {
    ("softmax", "a"): [1.0, 1.1, 0.9],
    ("none", "a"): [2.0, 2.1, 1.9],
    ("good", "a"): [0.5, 0.55, 0.45],
    ("softmax", "b"): [10.0, 11.0, 9.0],
    ("none", "b"): [5.0, 5.1, 4.9],
    ("good", "b"): [20.0, 22.0, 18.0],
}


def test_index_by_hand():
    board = board_of(rows_of(SCORES))
    assert board.tasks == ["a", "b"] or board.left_out
    by_name = {s.entry: s for s in board.standings}
    # Twice as good under every seed, on a lower-is-better and on a higher-is-better metric.
    assert by_name["good"].index.value == pytest.approx(math.log(2))
    assert by_name["good"].index.low == pytest.approx(math.log(2))
    assert by_name["softmax"].index.value == 0
    assert [s.entry for s in board.standings] == ["good", "softmax", "none"]
    assert [s.rank for s in board.standings] == [1, 2, 3]
    assert not any(s.tied for s in board.standings)


def test_task_that_does_not_measure_attention_is_left_out():
    flat = {("softmax", "flat"): [1.0, 1.2, 0.8], ("none", "flat"): [1.1, 1.3, 0.9],
            ("good", "flat"): [0.1, 0.1, 0.1]}  # fmt: skip
    board = board_of(rows_of({**SCORES, **flat}))
    assert [d.task for d in board.left_out] == ["flat"]
    assert board.left_out[0].ratio == pytest.approx(0.5)
    without = board_of(rows_of(SCORES))
    assert [s.index for s in board.standings] == [s.index for s in without.standings]


def test_one_seed_cannot_judge_a_task():
    board = board_of(rows_of({key: values[:1] for key, values in SCORES.items()}))
    assert board.unjudged == ["a", "b"]
    assert not board.standings[0].here.known
    alone = {key: values[:1] for key, values in SCORES.items() if key[1] == "a"}
    board = board_of(rows_of(alone))
    assert not board.standings[0].index.known
    assert board.standings[1].tied


def test_a_missing_task_takes_the_index_away():
    partial = {("partial", "a"): [0.1, 0.1, 0.1]}
    board = board_of(rows_of({**SCORES, **partial}))
    last = board.standings[-1]
    assert last.entry == "partial"
    assert last.missing == ("b",)
    assert last.rank is None
    assert math.isnan(last.index.value)


def test_adding_an_entry_changes_no_other_index():
    before = {s.entry: s.index for s in board_of(rows_of(SCORES)).standings}
    more = {("other", "a"): [3.0, 3.0, 3.0], ("other", "b"): [1.0, 1.0, 1.0]}
    after = {s.entry: s.index for s in board_of(rows_of({**SCORES, **more})).standings}
    assert {name: after[name] for name in before} == before


def test_overlapping_intervals_are_tied():
    noisy = {("x", "a"): [0.9, 1.3, 0.8], ("x", "b"): [9.0, 12.0, 10.0]}
    board = board_of(rows_of({**SCORES, **noisy}))
    places = {s.entry: s for s in board.standings}
    assert places["x"].tied or places["softmax"].tied


def test_scales_and_devices_do_not_mix():
    rows = rows_of(SCORES) + rows_of({("good", "a"): [9.0] * 3}, scale="small")
    assert board_of(rows).standings == board_of(rows_of(SCORES)).standings
    assert board_of(rows, device="cuda").standings == []


def test_only_the_latest_code_and_data_count():
    later = START + timedelta(hours=1)
    new = rows_of({("good", "a"): [1.0] * 3}, attention_hash="new", recorded_at=later)
    results = current(table_of(rows_of(SCORES) + new).to_pandas(), defaults={})
    mine = results.select(entry="good", task="a")
    assert set(mine["attention_hash"]) == {"new"}
    # An index of task a under the new code and task b under the old one would be nobody's.
    assert results.superseded == 6
    assert results.select(entry="good", task="b").empty
    new = rows_of({("softmax", "a"): [1.0] * 3}, task_hash="new", recorded_at=later)
    results = current(table_of(rows_of(SCORES) + new).to_pandas(), defaults={})
    assert set(results.select(task="a")["entry"]) == {"softmax"}


def test_reading_less_ranks_alike(tmp_path):
    store = ResultStore(tmp_path)
    store.prepare()
    later = START + timedelta(hours=1)
    store.append(rows_of(SCORES))
    new = {"attention_hash": "new", "recorded_at": later}
    store.append(rows_of({("good", "a"): [0.6] * 3}, **new))
    store.append(rows_of({("good", "b"): [0.0] * 3}, phase="train", **new))
    whole, less = load_results(store, {}), load_scores(store, {})
    place = (Track("causal-self", "tiny", "cpu"), HEADLINE)
    assert quality_board(whole, *place).standings == quality_board(less, *place).standings
    assert len(less.rows) < len(whole.rows)


def test_reading_costs_alone_gives_the_same_costs(tmp_path):
    store = ResultStore(tmp_path)
    store.prepare()
    base = {"kind": "efficiency", "phase": "forward", "length_q": 256, "task": ""}
    for metric in ("latency", "first_call"):
        for seed, value in enumerate((1.0, 1.2, 1.1)):
            row = rows_of({("softmax", ""): [value]}, metric=metric, **base)[0]
            row.seed, row.samples, row.cell = seed, [value, value * 1.1], f"c{seed}"
            store.append([row])
    whole, less = load_results(store, {}), load_costs(store, ["latency"], {})
    place = (Track("causal-self", "tiny", "cpu"), AXES[0])
    assert costs(whole, *place) == costs(less, *place)
    assert set(less.rows["metric"]) == {"latency"}


def test_a_cell_that_was_tried_again_counts_once():
    failed = rows_of({("good", "a"): [0.0]}, status="error", value=None, metric="", phase=None)
    again = rows_of({("good", "a"): [0.5]}, recorded_at=START + timedelta(hours=1), run_id="s")
    for row in (*failed, *again):
        row.cell = "same"
    results = current(table_of(failed + again).to_pandas(), defaults={})
    assert results.rows["status"].tolist() == ["ok"]


def test_options_name_the_entry():
    rows = rows_of({("good", "a"): [1.0]}, attention_options='{"width": 4, "on": true}')
    results = current(table_of(rows).to_pandas(), defaults={"good": {"width": 8, "on": True}})
    assert results.rows["entry"].tolist() == ["good (width=4)"]


def test_intervals_of_too_few_replicates_are_unknown():
    assert not mean_interval([1.0]).known
    assert not process_interval([[1.0, 2.0]]).known
    assert not estimate_general([[1.0]]).interval().known
    assert not estimate_here([[1.0], [2.0, 3.0]]).interval().known
    assert mean_interval([1.0]).overlaps(mean_interval([5.0, 5.1]))
    assert math.isnan(process_interval([]).value)


def test_process_interval_is_a_median_of_medians():
    interval = process_interval([[1.0, 2.0, 100.0], [3.0], [2.5]])
    assert interval.value == 2.5
    assert interval.low <= 2.5 <= interval.high
    assert interval.n == 3


def test_costs_by_length_and_phase():
    rows = []
    for seed, seconds in enumerate((1.0, 1.1, 0.9)):
        for metric, samples in (("latency", [seconds]), ("latency_ratio", [2.0, 2.2])):
            rows.append(
                Row(
                    cell=f"c{seed}",
                    recorded_at=START,
                    run_id="r",
                    kind="efficiency",
                    attention="x",
                    attention_hash="h",
                    attention_options="{}",
                    pattern="causal-self",
                    scale="tiny",
                    device="cpu",
                    seed=seed,
                    phase="forward",
                    length_q=256,
                    length_k=256,
                    batch=1,
                    heads=4,
                    head_dim=16,
                    dtype="float32",
                    metric=metric,
                    value=samples[0],
                    samples=samples,
                    task="",
                    task_hash="",
                    data_hash="",
                )
            )
    rows.append(
        Row(
            cell="c0",
            recorded_at=START,
            run_id="r",
            kind="efficiency",
            attention="x",
            attention_hash="h",
            attention_options="{}",
            pattern="causal-self",
            scale="tiny",
            device="cpu",
            seed=0,
            phase="forward",
            length_q=512,
            length_k=512,
            batch=1,
            heads=4,
            head_dim=16,
            dtype="float32",
            metric="latency",
            status="oom",
            task="",
            task_hash="",
            data_hash="",
        )
    )
    results = current(table_of(rows).to_pandas(), defaults={})
    short, long = cost_points(results, Track("causal-self", "tiny", "cpu"))
    assert short.latency.value == 1.0
    assert short.latency_ratio.value == pytest.approx(2.1)
    assert (long.length, long.status, long.latency.n) == (512, "oom", 0)
