"""CAB's index on CAB's published numbers: all 96 cells of its leaderboard."""

from pathlib import Path

import pandas as pd
import pytest

from cab.scoring.compositional import (
    CORRECTED_CONSTANTS,
    compositional_index,
    measured_constants,
)
from cab.scoring.published import load_published

HERE = Path(__file__).parent
KEY = ["pattern", "attention", "task"]


@pytest.fixture(scope="module")
def published():
    return load_published("cab2023")


@pytest.fixture(scope="module")
def check():
    rows = pd.read_csv(HERE / "data" / "cab_ci_check.csv")
    return rows.assign(pattern=rows["pattern"].str.replace("_", "-"))


def test_every_cell_comes_out_as_recomputed_by_hand(published, check):
    both = check.merge(compositional_index(published), on=KEY, how="outer")
    assert len(both) == len(check) == 96
    assert (both["value"] - both["ci_recomputed"]).abs().max() < 1e-3


def test_cells_that_reproduce_match_the_leaderboard(published, check):
    both = check.merge(compositional_index(published), on=KEY)
    same = both[both["verdict"].isin(["exact", "within input rounding"])]
    assert len(same) == 91
    # The leaderboard itself has three digits.
    off = (same["value"] - same["ci_published"]).abs()
    assert (off <= same["rounding_tolerance"] + 1.1e-3).all()


def test_the_mistyped_mean_accounts_for_summarization(published, check):
    corrected = compositional_index(published, CORRECTED_CONSTANTS)
    both = check.merge(corrected, on=KEY)
    both = both[(both["pattern"] == "noncausal-self") & (both["task"] == "Sum")]
    # FlashAttention was added with the mistyped one (ERRATA.md, T1).
    off = (both["value"] - both["ci_published"]).abs()[both["attention"] != "FlashAttention"]
    assert off.max() < 1e-3


def test_an_attention_without_a_metric_has_no_index_of_the_task(published):
    lacking = published[~((published["attention"] == "ABC") & (published["metric"] == "ROUGE-L"))]
    index = compositional_index(lacking).set_index(KEY)["value"]
    assert ("causal-cross", "ABC", "TTS") in index
    assert ("causal-cross", "ABC", "Sum") not in index
    assert ("causal-cross", "ABC", "average") not in index


def test_constants_of_a_measured_set_are_those_that_cab_would_derive(published):
    three = published[
        (published["pattern"] == "causal-cross") & (published["task"].isin(["TTS", "Sum"]))
    ]
    three = three[three["metric"] != "CI"]
    derived = {c.place: c for c in measured_constants(three)}
    known = [c for c in CORRECTED_CONSTANTS if c.pattern.value == "causal-cross"]
    assert len(derived) == len(known) == 5
    for constant in known:
        assert derived[constant.place].mean == pytest.approx(constant.mean, abs=1e-3)
        assert derived[constant.place].deviation == pytest.approx(constant.deviation, rel=1e-3)
        assert derived[constant.place].higher_is_better == constant.higher_is_better
