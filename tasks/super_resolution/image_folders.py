"""Reads folders of faces as FFHQ and CelebA-HQ are published: one picture a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from cab.errors import DataError
from tasks.super_resolution.picture_sets import PictureSets, Sizes

TRAINING, EVALUATION = "ffhq", "celebahq"

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

LAYOUT = (
    f"expected a folder with {TRAINING}/ and {EVALUATION}/, each with pictures "
    f"({', '.join(SUFFIXES)}) of any size, in folders of their own such as 00000/ or not"
)


class FolderPictures:
    """Pictures of a folder, centre-cropped to squares and resized.

    Each file is read when its picture is first used and kept: 50 kB a picture of 128 pixels, so
    3.4 GB for all of FFHQ.
    """

    def __init__(self, paths: Sequence[Path], side: int) -> None:
        self.paths = tuple(paths)
        self.side = side
        self._kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """(N, 3, side, side) uint8 of the rows (N,).

        Raises:
            DataError: a file is no picture, or too small; says which.
        """
        return torch.stack([self._one(row) for row in rows.tolist()])

    def _one(self, row: int) -> Tensor:
        if row not in self._kept:
            self._kept[row] = _read(self.paths[row], self.side)
        return self._kept[row]


def read_folders(folder: Path, sizes: Sizes) -> PictureSets:
    """FFHQ for training and validation, CelebA-HQ for the test, as in SR3.

    The validation pictures are those of FFHQ whose names come first in the order of their SHA-256,
    the test pictures the first of CelebA-HQ in the order of their names. Where a scale is trained
    on fewer than all pictures, they are the next ones in the order of SHA-256.

    Raises:
        DataError: a folder is missing or has too few pictures. Their content is read only later.
    """
    for problem in _listing_problems(folder, sizes):
        raise DataError(problem)
    drawn = sorted(_files(folder / TRAINING), key=lambda path: _rank(path, folder))
    count = sizes.counts["validation"]
    return {
        "train": FolderPictures(drawn[count:][: sizes.counts["train"]], sizes.high),
        "validation": FolderPictures(drawn[:count], sizes.high),
        "test": FolderPictures(
            _files(folder / EVALUATION)[: sizes.counts["test"]],
            sizes.high,
        ),
    }


def folder_problems(folder: Path, sizes: Sizes) -> Iterator[str]:
    """Everything in which a folder is not the original data, one line each; opens every picture
    that the sizes use.
    """
    problems = list(_listing_problems(folder, sizes))
    yield from problems
    if problems:
        return
    for pictures in read_folders(folder, sizes).values():
        assert isinstance(pictures, FolderPictures)
        for path in pictures.paths:
            try:
                _read(path, sizes.high)
            except DataError as error:
                yield str(error)


def hash_folders(folder: Path) -> str:
    """SHA-256 over the names and sizes of all pictures: reading FFHQ's 90 GB would take longer than
    many a run.
    """
    digest = hashlib.sha256()
    for part in (TRAINING, EVALUATION):
        for path in _files(folder / part):
            name = path.relative_to(folder).as_posix()
            digest.update(f"{name}\0{path.stat().st_size}\n".encode())
    return digest.hexdigest()


def _listing_problems(folder: Path, sizes: Sizes) -> Iterator[str]:
    needed = {TRAINING: sizes.counts["validation"] + 1, EVALUATION: sizes.counts["test"]}
    for part, least in needed.items():
        place = folder / part
        if not place.is_dir():
            yield f"{place} is no folder; {LAYOUT}"
            continue
        found = len(_files(place))
        if found < least:
            yield f"{place} has {found} pictures, {least} are needed; {LAYOUT}"


def _files(folder: Path) -> list[Path]:
    """In the order of their names; hidden files, such as those that macOS leaves, do not count."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


def _rank(path: Path, folder: Path) -> str:
    return hashlib.sha256(path.relative_to(folder).as_posix().encode()).hexdigest()


def _read(path: Path, side: int) -> Tensor:
    try:
        with Image.open(path) as picture:
            pixels = picture.convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} cannot be read as a picture ({reason}); {LAYOUT}") from None
    edge = min(pixels.size)
    if edge < side:
        raise DataError(
            f"{path} is {pixels.width} x {pixels.height} pixels, this scale needs {side} x {side}; "
            f"{LAYOUT}"
        )
    left, top = (pixels.width - edge) // 2, (pixels.height - edge) // 2
    square = pixels.crop((left, top, left + edge, top + edge))
    small = square.resize((side, side), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).contiguous()
