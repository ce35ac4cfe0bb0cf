"""Forecasting of a folder: what is read, what is refused, and the published settings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cab import Scale
from cab.errors import DataError
from tasks.forecasting.data import Series
from tasks.forecasting.published import published
from tasks.forecasting.task import Forecasting
from tests.tasks.forecasting_cases import PATTERNS, table, write


def test_data_dir_is_used_and_hashed(tmp_path: Path) -> None:
    frame = table()
    one = Forecasting(PATTERNS[0], Scale.TINY, write(tmp_path, frame))
    frame.loc[1999, "OT"] += 1
    two = Forecasting(PATTERNS[0], Scale.TINY, write(tmp_path, frame))
    assert one.data.columns == ("load", "OT")
    assert one.data_hash != two.data_hash


MALFORMED = [
    (table().rename(columns={"date": "when"}), "begins with column 'when'"),
    (table()[["date"]], "has one column only"),
    (table().assign(date="yesterday-ish"), "row 0 has no date"),
    (table().iloc[::-1], "not in order"),
    (table().assign(OT="n/a!"), "column 'OT' is not all finite numbers"),
    (table().assign(OT=np.nan), "column 'OT' is not all finite numbers"),
    (table(rows=0), "has no rows"),
    (table(rows=1000), "validation split has 100 of 1000 rows, a window needs 120"),
    (pd.DataFrame(), "cannot be read"),
]


@pytest.mark.parametrize(("frame", "complaint"), MALFORMED)
def test_malformed_csv_is_named(tmp_path: Path, frame: pd.DataFrame, complaint: str) -> None:
    write(tmp_path, frame)
    with pytest.raises(DataError, match=complaint) as caught:
        Forecasting(PATTERNS[0], Scale.TINY, tmp_path)
    assert "load.csv" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert Forecasting.data_problems(tmp_path)


def test_every_problem_is_reported(tmp_path: Path) -> None:
    """Two columns that are not numbers, a date that is none and one out of order."""
    frame = table().assign(OT="n/a!", third=np.inf)
    frame.loc[7, "date"] = "tomorrow"
    frame.loc[9, "date"] = "2001-01-01 00:00:00"
    problems = Forecasting.data_problems(write(tmp_path, frame))
    assert len(problems) == 4
    for problem, words in zip(problems, ("row 7", "not in order", "'OT'", "'third'"), strict=True):
        assert words in problem
        assert "load.csv" in problem
        assert "\n" not in problem
    # Windows of scale paper are the longest that are drawn.
    short = write(tmp_path, table(rows=2000))
    assert "a window needs 1056" in Forecasting.data_problems(short)[0]
    assert Forecasting.data_problems(write(tmp_path, table(rows=8000))) == []


def test_data_dir_needs_exactly_one_csv(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"0 \.csv files \(none\); expected"):
        Forecasting(PATTERNS[0], Scale.TINY, tmp_path)
    with pytest.raises(DataError, match=r"0 \.csv files"):
        Forecasting(PATTERNS[0], Scale.TINY, tmp_path / "nowhere")
    write(tmp_path, table())
    table().to_csv(tmp_path / "ETTh2.csv", index=False)
    with pytest.raises(DataError, match=r"2 \.csv files \(ETTh2\.csv, load\.csv\)"):
        Forecasting(PATTERNS[0], Scale.TINY, tmp_path)
    assert len(Forecasting.data_problems(tmp_path)) == 1


# The published data sets


@pytest.mark.parametrize(("file", "hourly_rows"), [("ETTh1.csv", 1), ("ETTm1.csv", 4)])
def test_ett_is_split_by_months(tmp_path: Path, file: str, hourly_rows: int) -> None:
    """12, 4 and 4 months of 30 days; what follows is not used."""
    month = 30 * 24 * hourly_rows
    frame = table(rows=20 * month + 500)
    frame["load"] = np.arange(len(frame), dtype=float)
    data = Forecasting(PATTERNS[0], Scale.TINY, write(tmp_path, frame, file)).data

    def rows(series: Series) -> tuple[int, int]:
        counted = series.values[:, 0].double() * data.deviation[0] + data.mean[0]
        return round(counted[0].item()), round(counted[-1].item()) + 1

    assert rows(data.train) == (0, 12 * month)
    assert rows(data.validation) == (12 * month, 16 * month)
    assert rows(data.test) == (16 * month, 20 * month)

    paper = Forecasting(PATTERNS[0], Scale.PAPER, tmp_path)
    history = published(file.removesuffix(".csv")).multivariate.history
    assert rows(paper.data.train) == (0, 12 * month)
    assert rows(paper.data.validation) == (12 * month - history, 16 * month)
    assert rows(paper.data.test) == (16 * month - history, 20 * month)


def test_short_ett_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, table(), "ETTh1.csv")
    with pytest.raises(DataError, match=r"ETTh1\.csv: it has 2000 rows, .* has 14400"):
        Forecasting(PATTERNS[0], Scale.TINY, folder)
    assert "14400" in Forecasting.data_problems(folder)[0]


@pytest.mark.parametrize(
    ("file", "variables", "history", "horizon", "layers"),
    [
        ("ETTh1.csv", 7, 336, 720, (2, 1)),
        ("ETTh1.csv", 1, 168, 720, (2, 1)),
        ("ETTm1.csv", 7, 672, 672, (2, 1)),
        ("ECL.csv", 3, 336, 960, (3, 2)),
        ("WTH.csv", 3, 720, 720, (3, 2)),
        ("another.csv", 3, 336, 720, (2, 1)),
    ],
)
def test_paper_scale_has_the_published_lengths(
    tmp_path: Path, file: str, variables: int, history: int, horizon: int, layers: tuple[int, int]
) -> None:
    rows = 57_600 if file.startswith("ETTm") else 14_400
    columns = {f"c{i}": np.sin(np.arange(rows) / (i + 1)) for i in range(variables)}
    frame = pd.DataFrame({"date": pd.date_range("2016-07-01", periods=rows, freq="15min")})
    task = Forecasting(PATTERNS[0], Scale.PAPER, write(tmp_path, frame.assign(**columns), file))
    assert (task.history, task.horizon) == (history, horizon)
    assert (task.geometry.encoder_layers, task.geometry.decoder_layers) == layers
    assert task.length() == (horizon, history)
    epochs = task.recipe.steps * task.recipe.batch_size / task.training_windows
    assert 5.9 < epochs <= 6
