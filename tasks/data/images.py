"""Pictures as tensors: crops of photographs in colour, and handwritten digits.

crops = photographs("train")  # (N, 3, 64, 64) uint8
images, labels = digits("test")  # (N, 28, 28) uint8, (N,) int64
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tasks.data.embedded import dataset

CROP_SIDE = 64
DIGIT_SIDE = 28


def photographs(split: str, folder: Path | None = None) -> Tensor:
    """(N, 3, 64, 64) uint8 RGB crops of the photographs of a split, in the order of the table.

    Args:
        split: "train", "validation" or "test"; a photograph is in one of them only.
        folder: where manifest and files lie; by default in the package.

    Raises:
        DataError: the file is missing, truncated or altered.
        UnknownEntryError: no such split.
    """
    files = dataset("photographs", folder).select(split)["image"].to_pylist()
    crops = np.empty((len(files), CROP_SIDE, CROP_SIDE, 3), np.uint8)
    for crop, file in zip(crops, files, strict=True):
        with Image.open(io.BytesIO(file)) as picture:
            crop[:] = np.asarray(picture)
    return torch.from_numpy(crops).permute(0, 3, 1, 2).contiguous()


def digits(split: str, folder: Path | None = None) -> tuple[Tensor, Tensor]:
    """Images (N, 28, 28) uint8, 0 background to 255 ink, and labels (N,) int64 of a split.

    Args:
        split: "train", "validation" or "test".
        folder: where manifest and files lie; by default in the package.

    Raises:
        DataError: the file is missing, truncated or altered.
        UnknownEntryError: no such split.
    """
    table = dataset("mnist-5k", folder).select(split)
    pixels = bytearray(b"".join(table["image"].to_pylist()))
    images = torch.frombuffer(pixels, dtype=torch.uint8).view(-1, DIGIT_SIDE, DIGIT_SIDE)
    return images, torch.tensor(table["label"].to_pylist())
