"""Merge a results folder into one compact file of results/reference, labelled as reference.

python docs/merge_reference.py results/runs small-cpu
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cab.store import ResultStore

REFERENCE = Path(__file__).resolve().parent.parent / "results" / "reference"


def main() -> None:
    """Read, relabel and write."""
    source, name = Path(sys.argv[1]), sys.argv[2]
    table = ResultStore(source).read()
    label = table.schema.get_field_index("label")
    values = pa.array(["reference"] * table.num_rows, pa.string())
    table = table.set_column(label, table.schema.field(label), values)
    table = table.sort_by([("cell", "ascending"), ("metric", "ascending")])
    REFERENCE.mkdir(parents=True, exist_ok=True)
    target = REFERENCE / f"{name}.parquet"
    pq.write_table(table, target, compression="zstd")
    print(f"{table.num_rows} rows in {target.name}")


if __name__ == "__main__":
    main()
