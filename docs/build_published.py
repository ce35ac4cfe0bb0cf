"""Build results/published/cab2023.parquet from the transcribed tables beside it.

python docs/build_published.py           # write
python docs/build_published.py --check   # exit code 1 where the file is stale

``cab2023.csv`` has CAB's numbers as printed, with the file of CAB's repository that each was read
in. This script turns them into result rows and marks those that an erratum (ERRATA.md) is about; a
corrected number is a row more, never a change.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cab.schema import Row, table_of
from cab.scoring.published import ERRATA, MARKS

FOLDER = Path(__file__).resolve().parent.parent / "results" / "published"
SOURCE = FOLDER / "cab2023.csv"
TARGET = FOLDER / "cab2023.parquet"
COMMIT = "Shark-NLP/CAB@0e49696"
UNITS = {"MCD": "dB", "PSNR": "dB", "time_ms": "ms", "memory_mib": "MiB"}
TOKENS = ("efficiency_length_time", "efficiency_length_memory")


@dataclass(frozen=True)
class Erratum:
    """A mark on the rows that an entry of ERRATA.md is about, and their corrected value, if any."""

    number: str
    says: str
    about: Callable[[Row], bool]
    value: float | None = None


RELABELLED = "column labels corrected"
ERRATA_ROWS = (
    Erratum(
        "T2",
        "CAB's own index of this cell follows from 31.53, not from the 29.13 of the table",
        lambda r: (r.pattern, r.attention, r.metric) == ("causal-self", "ABC", "PPL"),
        31.53,
    ),
    Erratum(
        "T3",
        "this index does not follow from the table within its rounding",
        lambda r: (
            (r.pattern, r.task, r.metric) == ("causal-self", "TTS", "CI")
            and r.attention in ("S4D", "local")
        ),
    ),
    Erratum(
        "T4",
        "CAB's README calls ECL Weather and Weather ECL; the label here is the right one",
        lambda r: RELABELLED in (r.source or ""),
    ),
    Erratum(
        "T5",
        "vanilla's error is likely too good: MAE .24 does not go with MSE .251",
        lambda r: (
            r.attention == "vanilla" and r.metric == "MAE"
            and r.dataset in ("ETT", "ETTh1-univariate")
        ),
    ),
    Erratum(
        "T9",
        "FlashAttention and vanilla compute the same function",
        lambda r: (r.attention, r.task, r.metric) == ("FlashAttention", "SR", "CI"),
    ),
    Erratum(
        "C1",
        "causal ABC in CAB's library mixes no tokens",
        lambda r: r.attention == "ABC" and r.pattern == "causal-self" and r.metric != "CI",
    ),
    Erratum(
        "C14",
        "vanilla attends at three resolutions here, all others at four",
        lambda r: r.attention == "vanilla" and r.task == "SR",
    ),
)  # fmt: skip


def main() -> int:
    """Write the table, or compare it with what is there."""
    table = build()
    if "--check" in sys.argv[1:]:
        if TARGET.exists() and pq.read_table(TARGET).equals(table):
            return 0
        print(f"{TARGET.name} is stale: run python docs/build_published.py", file=sys.stderr)
        return 1
    pq.write_table(table, TARGET, compression="zstd")
    print(f"{table.num_rows} rows in {TARGET.name}")
    return 0


def build() -> pa.Table:
    """All rows, corrected ones last."""
    printed = [_marked(_row(record)) for record in pd.read_csv(SOURCE).to_dict("records")]
    corrected = [
        replace(
            row,
            run_id=ERRATA,
            cell=_key(row, ERRATA),
            value=erratum.value,
            message=f"{erratum.number}: in place of the printed {row.value:g}; {erratum.says}",
            source=f"ERRATA.md {erratum.number}",
        )
        for row in printed
        for erratum in ERRATA_ROWS
        if erratum.value is not None and erratum.about(row)
    ]
    return table_of(printed + corrected)


def _row(record: dict[str, object]) -> Row:
    length = None
    dataset = str(record["dataset"])
    if dataset.startswith("dummy L="):
        length = int(dataset.removeprefix("dummy L="))
    metric = str(record["metric"])
    row = Row(
        cell="",
        run_id="printed",
        kind="published",
        label="published",
        attention=str(record["attention"]),
        pattern=str(record["pattern"]).replace("_", "-"),
        task=str(record["task"]),
        dataset=dataset,
        backbone=str(record["backbone"]),
        scale="paper",
        metric=metric,
        value=float(str(record["value"])),
        unit="token" if metric in TOKENS else UNITS.get(metric, "1"),
        higher_is_better=bool(record["higher_is_better"]),
        length_q=length,
        length_k=length,
        source=f"{COMMIT}: {record['source']}",
    )
    row.cell = _key(row, "printed")
    return row


def _marked(row: Row) -> Row:
    said = [f"{e.number}: {e.says}" for e in ERRATA_ROWS if e.about(row)]
    return replace(row, message=MARKS.join(said) or None)


def _key(row: Row, run: str) -> str:
    place = (
        run, row.attention, row.pattern, str(row.task), str(row.dataset), str(row.backbone),
        row.metric,
    )  # fmt: skip
    return hashlib.sha256("\0".join(place).encode()).hexdigest()[:32]


if __name__ == "__main__":
    sys.exit(main())
