"""Writes a built data set: its Parquet file and its entry of the manifest."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cab.errors import DataError
from tasks.data.build.source_archive import SourceArchive

DATA_FOLDER = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Description:
    """What the build script says of its data set before it has read anything."""

    name: str
    title: str
    description: str
    source: SourceArchive
    licence: str
    attribution: str
    split_rule: str
    id_column: str | None
    """The column that the splits name; None where they are row ranges."""


@dataclass(frozen=True)
class Product:
    """What the build script makes of the archive."""

    table: pa.Table
    splits: Mapping[str, Sequence[str]]
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Items of the source that the table lacks, each with the reason."""
    notes: Sequence[str] = ()
    """What a user of the data should know: defects, repairs, oddities."""
    filled: Mapping[str, int] = field(default_factory=dict)
    """Values per column that the source does not have."""


def parquet_bytes(table: pa.Table, repeated: Sequence[str] = ()) -> bytes:
    """The table as a Parquet file; the same table gives the same bytes.

    Args:
        table: the rows in their final order.
        repeated: columns of few distinct values, to be stored as a dictionary.
    """
    buffer = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata(None),
        buffer,
        compression="zstd",
        compression_level=19,
        use_dictionary=list(repeated),
        row_group_size=max(table.num_rows, 1),
        # One page per column: longer pages compress better, and nothing reads a part of a file.
        data_page_size=1 << 26,
        write_statistics=False,
        store_schema=False,
    )
    return buffer.getvalue()


def publish(
    description: Description, product: Product, folder: Path, repeated: Sequence[str]
) -> str:
    """Write the file and the manifest entry; returns one line of summary."""
    content = parquet_bytes(product.table, repeated)
    file = folder / f"{description.name}.parquet"
    entry = {
        **asdict(description),
        "source": {**asdict(description.source), "download": description.source.download},
        "file": file.name,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "rows": product.table.num_rows,
        "columns": product.table.column_names,
        "splits": {name: list(ids) for name, ids in product.splits.items()},
        "left_out": dict(product.left_out),
        "notes": list(product.notes),
        "filled": dict(product.filled),
        "build": f"tasks.data.build.{description.name.replace('-', '_')}",
        "built_with": f"pyarrow {pa.__version__}",
    }
    folder.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    _record(folder / "manifest.json", description.name, entry)
    return f"{file}: {product.table.num_rows} rows, {len(content)} bytes, SHA-256 {entry['sha256']}"


def _record(manifest: Path, name: str, entry: Mapping[str, object]) -> None:
    entries = json.loads(manifest.read_text(encoding="utf-8")) if manifest.exists() else {}
    entries[name] = entry
    text = json.dumps(dict(sorted(entries.items())), indent=1, ensure_ascii=False)
    manifest.write_text(text + "\n", encoding="utf-8", newline="\n")


def run(
    description: Description,
    build: Callable[[Mapping[str, bytes]], Product],
    repeated: Sequence[str] = (),
) -> None:
    """The command line of a build script: `PATH [--out DIR]`."""
    parser = argparse.ArgumentParser(description=f"Build {description.name} from its source.")
    parser.add_argument("archive", type=Path, help=f"from `{description.source.download}`")
    parser.add_argument("--out", type=Path, default=DATA_FOLDER, help="folder to write to")
    arguments = parser.parse_args()
    try:
        members = description.source.members(arguments.archive)
    except DataError as error:
        parser.error(str(error))
    print(publish(description, build(members), arguments.out, repeated))
