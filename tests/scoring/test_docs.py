"""The example that docs/scoring.md works by hand, recomputed from the page's own tables."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cab.scoring.compositional import compositional_index
from cab.scoring.correlation import rank_correlation
from cab.scoring.crossover import crossover
from cab.scoring.detectable import POWER, smallest
from cab.scoring.intervals import Interval, estimate_here
from cab.scoring.pareto import DRAWS, quality_per_cost
from cab.scoring.published import efficiency_lengths, load_published
from cab.scoring.quality import DISCRIMINATION, quality_board
from cab.scoring.ranks import ALPHA, holm
from cab.scoring.resolution import resolution
from cab.scoring.results import current
from cab.scoring.short_runs import DRAWS as LENGTH_DRAWS
from cab.scoring.task_scores import LIMIT
from cab.track import Track
from tests.scoring.test_ranks import scores_of

PAGE = (Path(__file__).parents[2] / "docs" / "scoring.md").read_text(encoding="utf-8")


def table(head):
    """Cells of the table that begins with a head."""
    lines = PAGE[PAGE.index(head) :].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    end = (n for n, line in enumerate(lines[2:]) if not line.startswith("|"))
    return rows[: next(end, None)]


@pytest.fixture(scope="module")
def board():
    rows = []
    for task, metric, better, seed, *values in table("| task | metric | better | seed |"):
        for entry, value in zip(("softmax", "none", "A", "B"), values, strict=True):
            rows.append((entry, task, metric, better == "higher", int(seed), float(value)))
    columns = ["attention", "task", "metric", "higher_is_better", "seed", "value"]
    frame = pd.DataFrame(rows, columns=columns)
    frame = frame.assign(
        cell=frame["attention"] + frame["task"] + frame["seed"].astype(str), run_id="r",
        kind="quality", status="ok", phase="eval", pattern="causal-self", scale="tiny",
        device="cpu", grade="faithful", attention_options="{}", task_hash="t", data_hash="d",
        attention_hash="h", recorded_at=pd.Timestamp("2026-01-01", tz="UTC"),
    )  # fmt: skip
    headline = {"translation": ["loss", "score"], "copying": ["accuracy"], "noise": ["loss"]}
    return quality_board(current(frame, {}), Track("causal-self", "tiny", "cpu"), headline)


@pytest.fixture(scope="module")
def recomputed(board):
    a, told = board.standing("A"), resolution(board)
    here = estimate_here(board.scores.groups("A"))
    place = board.pairs.index("A"), board.pairs.index("softmax")
    games = {"won1": 1, "won2": 1, "won3": 1, "lost": -1}
    grids = {t: {"softmax": [0.0, 0.0], "x": [s, s * 1.1]} for t, s in games.items()}
    grids["drawn"] = {"softmax": [0.0, 0.0], "x": [-1.0, 1.0]}
    from cab.scoring.bradley_terry import ratings

    ratios = {n: 3 * n / (n**2 / 100) for n in (256, 512)}
    ratios = {n: Interval(r, r, r, 3) for n, r in ratios.items()}
    names = "abcde"
    rho = rank_correlation(
        dict(zip(names, (1, 2, 3, 4, 5), strict=True)),
        dict(zip(names, (2, 1, 4, 3, 5), strict=True)),
    )
    published = load_published("cab2023")
    cab = compositional_index(published).set_index(["pattern", "attention", "task"])["value"]
    lengths = {(x.attention, x.quantity): x.recomputed for x in efficiency_lengths(published)}
    return {
        "gap over spread, noise": board.left_out[0].ratio,
        "score of A, translation, seed 0": board.scores.of("A", "translation")[0],
        "score of A, translation, seed 1": board.scores.of("A", "translation")[1],
        "score of A, translation": a.tasks["translation"],
        "score of A, copying": a.tasks["copying"],
        "index of A": a.index.value,
        "index of A, low": a.index.low,
        "index of A, high": a.index.high,
        "these tasks, A": here.variance,
        "these tasks, freedom": here.freedom,
        "these tasks, low": a.here.low,
        "these tasks, high": a.here.high,
        "p of A against softmax, these tasks": board.pairs.p_here[place],
        "p of A against softmax, general": board.pairs.p_general[place],
        "p of A against softmax, these tasks, of 6 pairs": told.pairwise.p_here[
            told.entries.index("A"), told.entries.index("softmax")
        ],
        "noise of translation": told.signals["translation"].noise,
        "signal of translation": told.signals["translation"].signal,
        "signal to noise of translation": told.signals["translation"].ratio.value,
        "share of copying": told.contribution("copying").share,
        "smallest difference, variance 0.01, 2 degrees": smallest(
            np.array(0.01), np.array(2.0), ALPHA
        ),
        "Holm of .01 .02 .03 .04, second": holm(np.array([0.01, 0.02, 0.03, 0.04]))[1],
        "strength, 3 won, 1 drawn, 1 lost": ratings(scores_of(grids))["x"].strength.value,
        "index per doubling, index 0.3, 8 times the cost": quality_per_cost(0.3, 8.0),
        "pays from, costs 3 L and L²/100": crossover(ratios, "softmax").length,
        "ρ of ranks 1 2 3 4 5 and 2 1 4 3 5": rho.value,
        "its interval, low": rho.low,
        "CAB's SR index of local": cab["noncausal-self", "local", "SR"],
        "CAB's efficiency length of ABC, time": lengths["ABC", "time"],
        "CAB's efficiency length of ABC, memory": lengths["ABC", "memory"],
    }


def test_every_number_worked_by_hand_comes_out(recomputed):
    rows = table("| quantity | by hand | value |")
    assert [row[0] for row in rows] == list(recomputed)
    for quantity, _, value in rows:
        digits = len(value.partition(".")[2])
        assert round(float(recomputed[quantity]), digits) == float(value), quantity


def test_the_marks_of_the_example(board):
    assert [s.entry for s in board.standings] == ["A", "softmax", "B", "none"]
    assert [s.separation.mark for s in board.standings] == ["", "~", "~", "~"]
    assert [found.task for found in board.left_out] == ["noise"]


def test_constants_on_the_page_are_those_of_the_code():
    assert f"limited to ±ln {round(np.exp(LIMIT))}" in PAGE
    assert DISCRIMINATION == 4
    assert f"with {POWER:.0%} power".replace("%", " %") in PAGE
    assert "beat `none` by four times" in PAGE
    assert f"percentiles of {LENGTH_DRAWS} draws" in PAGE
    assert f"share of {DRAWS} joint draws" in PAGE.replace("\n", " ")
