"""Reads the files of the Point Cloud Library, format 0.7 and before: ``.pcd``.

A header of lines ``KEY words`` up to ``DATA``, then the points: as text, one a line (``ascii``), or
as packed little-endian records (``binary``). Compressed files (``binary_compressed``, LZF by field)
are refused with a remedy.

https://pointclouds.org/documentation/tutorials/pcd_file_format.html
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cab.errors import DataError

_COORDINATES = ("x", "y", "z")
_TYPES = {
    **{("F", size): f"<f{size}" for size in (4, 8)},
    **{("I", size): f"<i{size}" for size in (1, 2, 4, 8)},
    **{("U", size): f"<u{size}" for size in (1, 2, 4, 8)},
}


@dataclass(frozen=True)
class Header:
    """What stands before the points."""

    record: np.dtype[np.void]
    """Of one point; a field without a name of its own is ``_`` and its number"""
    points: int
    encoding: str
    size: int
    """Of the header in bytes"""


def read_pcd(path: Path) -> NDArray[np.float32]:
    """(N, 3) coordinates of the points, in the order of the file.

    Raises:
        DataError: not such a file, compressed, shorter than its header says, or with a coordinate
            that is not finite.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    try:
        header = read_header(content)
        points = _points(content[header.size :], header)
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}") from error
    if not np.isfinite(points).all():
        raise DataError(f"{path}: a coordinate is not a finite number")
    return points


def read_header(content: bytes) -> Header:
    """The header at the beginning of a file.

    Raises:
        ValueError: it is incomplete or contradicts itself.
    """
    entries: dict[str, list[str]] = {}
    begin = 0
    while "DATA" not in entries:
        end = content.find(b"\n", begin)
        if end < 0:
            raise ValueError("no PCD header: a line DATA is missing")
        key, *words = content[begin:end].decode("ascii").split() or ["#"]
        if not key.startswith("#"):
            entries[key] = words
        begin = end + 1
    missing = [key for key in ("FIELDS", "SIZE", "TYPE", "POINTS") if not entries.get(key)]
    if missing:
        raise ValueError(f"the PCD header has no {' and no '.join(missing)}")
    names = entries["FIELDS"]
    counts = entries.get("COUNT", ["1"] * len(names))
    if not len(names) == len(entries["SIZE"]) == len(entries["TYPE"]) == len(counts):
        raise ValueError("FIELDS, SIZE, TYPE and COUNT of the PCD header differ in length")
    absent = [name for name in _COORDINATES if names.count(name) != 1]
    if absent:
        raise ValueError(f"the PCD header has not one field {' and one '.join(absent)}")
    fields = []
    for number, (name, kind, size, count) in enumerate(
        zip(names, entries["TYPE"], entries["SIZE"], counts, strict=True)
    ):
        stored = _TYPES.get((kind, int(size)))
        if stored is None:
            raise ValueError(f"field {name} has type {kind} of {size} bytes")
        label = name if name in _COORDINATES else f"_{number}"
        fields.append((label, stored, (int(count),)))
    encoding = " ".join(entries["DATA"])
    return Header(np.dtype(fields), int(entries["POINTS"][0]), encoding, begin)


def _points(body: bytes, header: Header) -> NDArray[np.float32]:
    if header.encoding == "ascii":
        return _from_text(body, header)
    if header.encoding == "binary":
        needed = header.points * header.record.itemsize
        if len(body) < needed:
            raise ValueError(f"{len(body)} of {needed} bytes of points: the file is truncated")
        records = np.frombuffer(body, header.record, count=header.points)
        columns = [records[name][:, 0] for name in _COORDINATES]
        return np.stack(columns, axis=1).astype(np.float32)
    raise ValueError(
        f"DATA {header.encoding} is not supported, only ascii and binary; convert it with "
        "`pcl_convert_pcd_ascii_binary IN.pcd OUT.pcd 1`"
    )


def _from_text(body: bytes, header: Header) -> NDArray[np.float32]:
    shapes = {name: header.record[name].shape[0] for name in header.record.names or ()}
    width = sum(shapes.values())
    numbers = np.array(body.split(), dtype=np.float64)
    if len(numbers) != header.points * width:
        raise ValueError(
            f"{len(numbers)} numbers in the text of {header.points} points of {width} each"
        )
    ends = dict(zip(shapes, np.cumsum([*shapes.values()]), strict=True))
    columns = [ends[name] - shapes[name] for name in _COORDINATES]
    return numbers.reshape(-1, width)[:, columns].astype(np.float32)
