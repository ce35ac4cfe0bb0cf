"""The embedded series of electric power: regular, plausible, and split without leaks."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from tasks.data.build import simbench_profiles
from tasks.data.embedded import SPLITS, EmbeddedDataset, dataset


@pytest.fixture(scope="module")
def profiles() -> EmbeddedDataset:
    return dataset("simbench-profiles")


def test_file_is_the_one_of_the_manifest(profiles: EmbeddedDataset) -> None:
    table = profiles.table()  # verifies the SHA-256
    assert table.num_rows == profiles.rows == 34_944 == 52 * 7 * 96
    assert tuple(table.column_names) == profiles.columns
    assert profiles.columns[1:] == simbench_profiles.COLUMNS
    assert len(simbench_profiles.LOADS) == 27
    assert len(simbench_profiles.RENEWABLES) == 28
    assert profiles.bytes < 2_500_000
    assert profiles.licence == "ODbL-1.0"


def test_rows_are_a_quarter_hour_apart(profiles: EmbeddedDataset) -> None:
    times = profiles.table()["timestamp"].to_pylist()
    assert {later - time for time, later in itertools.pairwise(times)} == {timedelta(minutes=15)}
    assert times[0] == datetime(2015, 12, 31, 23, tzinfo=UTC)


def test_values_are_fractions_in_thousandths(profiles: EmbeddedDataset) -> None:
    table = profiles.table()
    for name in simbench_profiles.COLUMNS:
        values = table[name].to_numpy()
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
        assert 0 <= values.min() < values.max() <= 1, name
        assert np.signbit(values).sum() == 0
        assert values.std() > 0.05, name
        np.testing.assert_array_equal(values, values.astype(np.float64).round(3).astype("f4"))


def test_the_sun_shines_by_day(profiles: EmbeddedDataset) -> None:
    table = profiles.table()
    hours = np.arange(profiles.rows) // 4 % 24
    for name in (f"PV{n}" for n in range(1, 9)):
        values = table[name].to_numpy()
        assert values[(hours < 2) | (hours >= 22)].max() == 0
        assert values[(hours >= 10) & (hours < 14)].mean() > 0.1


def test_splits_are_chronological(profiles: EmbeddedDataset) -> None:
    parts = [profiles.select(split) for split in SPLITS]
    assert pa.concat_tables(parts).equals(profiles.table())
    shares = [part.num_rows / profiles.rows for part in parts]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.001)


def test_no_day_stands_in_two_splits(profiles: EmbeddedDataset) -> None:
    """Profiles may repeat a stretch to fill a gap; none of a day's length may cross the splits."""
    day, seen = 96, dict[tuple[str, bytes], str]()
    for split in SPLITS:
        part = profiles.select(split)
        for name in simbench_profiles.COLUMNS:
            windows = np.lib.stride_tricks.sliding_window_view(part[name].to_numpy(), day)
            # A dark day has few values above zero, and another dark day may have the same.
            lively = (np.diff(windows, axis=1) != 0).sum(1) > day // 3
            for window in np.ascontiguousarray(windows[lively]):
                assert seen.setdefault((name, window.tobytes()), split) == split, (name, split)


def profile_csv(times: list[str], columns: tuple[str, ...]) -> bytes:
    lines = [";".join(["time", *columns])]
    lines += [";".join([time, *(["0.5"] * len(columns))]) for time in times]
    return "\n".join(lines).encode()


def test_local_time_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simbench_profiles, "ROWS", 3)
    loads = tuple(f"{name}_pload" for name in simbench_profiles.LOADS)
    times = ["01.01.2016 00:00", "01.01.2016 00:15", "01.01.2016 00:30"]
    members = {
        f"{simbench_profiles.FOLDER}/LoadProfile.csv": profile_csv(times, loads),
        f"{simbench_profiles.FOLDER}/RESProfile.csv": profile_csv(
            times, simbench_profiles.RENEWABLES
        ),
    }
    assert simbench_profiles.build(members).table["PV1"].to_pylist() == [0.5, 0.5, 0.5]
    shifted = [times[0], times[2], times[1]]
    members[f"{simbench_profiles.FOLDER}/LoadProfile.csv"] = profile_csv(shifted, loads)
    with pytest.raises(ValueError, match=r"row 1 is of 01\.01\.2016 00:30"):
        simbench_profiles.build(members)
