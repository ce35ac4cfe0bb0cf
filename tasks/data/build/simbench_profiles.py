"""Builds `simbench-profiles`: electric load and renewable generation of 2016 in quarter hours.

    pip download --no-deps simbench==1.6.3
    python -m tasks.data.build.simbench_profiles simbench-1.6.3-py3-none-any.whl

Source: `LoadProfile.csv` and `RESProfile.csv` of the grid "1-complete_data-mixed-all-0-sw", with
one line per quarter hour in German local time, so that 02:00 to 02:45 is missing on the last Sunday
of March and stands twice on that of October.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from tasks.data.build.publication import Description, Product, run
from tasks.data.build.source_archive import SourceArchive

FOLDER = "simbench/networks/1-complete_data-mixed-all-0-sw"

LOADS = (
    *("BL-H", "G0-A", "G0-M", "G1-A", "G1-B", "G1-C", "G2-A", "G3-A", "G3-H", "G3-M", "G4-A"),
    *("G4-B", "G4-H", "G4-M", "G5-A", "G6-A", "H0-A", "H0-B", "H0-C", "H0-G", "H0-H", "H0-L"),
    *("L0-A", "L1-A", "L2-A", "L2-M", "WB-H"),
)
RENEWABLES = (
    *(f"PV{n}" for n in range(1, 9)),
    *(f"WP{n}" for n in range(1, 13)),
    *(f"BM{n}" for n in range(1, 6)),
    *(f"Hydro{n}" for n in range(1, 4)),
)
COLUMNS = LOADS + RENEWABLES

FIRST = datetime(2015, 12, 31, 23, tzinfo=UTC)
QUARTER = timedelta(minutes=15)
SUMMER_TIME = (datetime(2016, 3, 27, 1, tzinfo=UTC), datetime(2016, 10, 30, 1, tzinfo=UTC))

# 52 weeks. On the day after them five households repeat the fifth of January.
ROWS = 52 * 7 * 96

DECIMALS = 3

DESCRIPTION = Description(
    name="simbench-profiles",
    title="SimBench reference profiles, 2016",
    description=(
        "Reference profiles of SimBench, a benchmark of electric grids: active power of 27 "
        "consumers (H0: households, G0 to G6: trade, L0 to L2: farms, BL and WB: large consumers) "
        "and of 28 renewable sources (PV: sun, WP: wind, BM: biomass, Hydro: water) as a fraction "
        "of each one's rated or largest power. One row per quarter hour, without a gap, timestamps "
        "in UTC."
    ),
    source=SourceArchive(
        package="simbench",
        version="1.6.3",
        filename="simbench-1.6.3-py3-none-any.whl",
        sha256="8b48bdab2445286a96649eb18bb09476d000a0e212fd57fdba83399df54af4de",
    ),
    licence="ODbL-1.0",
    attribution=(
        "Contains information from SimBench (www.simbench.net), University of Kassel, Fraunhofer "
        "IEE, RWTH Aachen University and TU Dortmund, which is made available here under the Open "
        "Database License (ODbL)."
    ),
    split_rule=(
        "Chronological: the first 70 % of the rows are train, the next 10 % validation, the last "
        "20 % test; each split is one range of rows, first:end."
    ),
    id_column=None,
)


def build(members: Mapping[str, bytes]) -> Product:
    """One row per quarter hour of the first 52 weeks."""
    loads = _read(members[f"{FOLDER}/LoadProfile.csv"], [f"{name}_pload" for name in LOADS])
    renewables = _read(members[f"{FOLDER}/RESProfile.csv"], RENEWABLES)
    values = np.hstack([loads, renewables])
    # Adding zero turns the -0.0 that rounding leaves of some calms into 0.0.
    rounded = (values.round(DECIMALS) + 0.0).astype(np.float32)
    times = pa.array([FIRST + n * QUARTER for n in range(ROWS)], pa.timestamp("ms", tz="UTC"))
    train, validation = int(0.7 * ROWS), int(0.8 * ROWS)
    return Product(
        table=pa.table([times, *rounded.T], names=["timestamp", *COLUMNS]),
        splits={
            "train": [f"0:{train}"],
            "validation": [f"{train}:{validation}"],
            "test": [f"{validation}:{ROWS}"],
        },
        left_out={
            "2016-12-29T23:00Z and after": "five households repeat the fifth of January",
            "lv_*, mv_*, hv_*": "sums over a grid",
            "HLS*, APLS*, Air*, Soil*, HS*": "charging of cars, heat pumps and storage: simulated",
            "*_qload": "reactive power",
        },
        notes=[
            f"Rounded to {DECIMALS} decimals.",
            "Which profiles were measured and which derived is not documented: several households "
            "repeat single days of the week before (within one split), WP1 repeats a month "
            "(within train), and the biomass profiles change slowly.",
            "The loads follow local time, which these timestamps, in UTC, do not show. The sun "
            "profiles peak about an hour too early for their timestamps.",
        ],
    )


def _read(
    content: bytes, columns: Sequence[str]
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """(ROWS, columns) values, after the timestamps were checked."""
    header, *lines = content.decode("ascii").splitlines()
    names = header.split(";")
    indexes = [names.index(column) for column in columns]
    rows = []
    for n, line in enumerate(lines[:ROWS]):
        fields = line.split(";")
        time = FIRST + n * QUARTER
        summer = SUMMER_TIME[0] <= time < SUMMER_TIME[1]
        local = time + timedelta(hours=2 if summer else 1)
        if fields[0] != local.strftime("%d.%m.%Y %H:%M"):
            raise ValueError(f"row {n} is of {fields[0]}, not of {local}")
        rows.append([float(fields[index]) for index in indexes])
    return np.array(rows)


if __name__ == "__main__":
    run(DESCRIPTION, build, repeated=COLUMNS)
