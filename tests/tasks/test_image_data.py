"""The pictures: crops that decode exactly, photographs in one split only, digits as labelled."""

from __future__ import annotations

import io
import itertools
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cab.errors import DataError, UnknownEntryError
from tasks.data.build.photographs import (
    CROPS_PER_PHOTOGRAPH,
    LEAST_CONTRAST,
    PHOTOGRAPHS,
    SHORT_SIDE,
    crops,
    scaled,
    webp,
)
from tasks.data.build.publication import DATA_FOLDER
from tasks.data.embedded import SPLITS, dataset
from tasks.data.images import digits, photographs


@pytest.fixture(scope="module")
def pictures() -> dict[str, Tensor]:
    return {split: photographs(split) for split in SPLITS}


# Photographs


def test_crops_are_those_of_the_manifest(pictures: dict[str, Tensor]) -> None:
    data = dataset("photographs")
    assert data.columns == ("id", "photograph", "x", "y", "image")
    assert data.rows == 998
    assert data.bytes < 6_000_000
    assert [len(pictures[split]) for split in SPLITS] == [699, 108, 191]
    for part in pictures.values():
        assert part.dtype == torch.uint8
        assert part.shape[1:] == (3, 64, 64)
        assert part.is_contiguous()


def test_photographs_are_in_one_split(pictures: dict[str, Tensor]) -> None:
    data = dataset("photographs")
    members = [member for split in SPLITS for member in data.split(split)]
    assert sorted(members) == sorted(photograph.id for photograph in PHOTOGRAPHS)
    assert sorted(members) == sorted(data.table()["photograph"].unique().to_pylist())
    assert all(len(data.split(split)) >= 3 for split in SPLITS)


def test_crops_of_a_photograph_do_not_overlap() -> None:
    rows = dataset("photographs").table().drop_columns(["image"]).to_pylist()
    assert len({(row["photograph"], row["x"], row["y"]) for row in rows}) == len(rows)
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert row["x"] % 64 == row["y"] % 64 == 0
        assert row["id"] == f"{row['photograph']}-{row['x']}-{row['y']}"
    assert max(Counter(row["photograph"] for row in rows).values()) <= CROPS_PER_PHOTOGRAPH


def test_crops_hold_content_in_colour(pictures: dict[str, Tensor]) -> None:
    for part in pictures.values():
        pixels = part.double()
        assert pixels.mean(1).flatten(1).std(1, correction=0).min() >= LEAST_CONTRAST
        chroma = (pixels - pixels.mean(1, keepdim=True)).abs().mean((1, 2, 3))
        assert (chroma > 3).double().mean() > 0.75


def test_no_crop_recurs(pictures: dict[str, Tensor]) -> None:
    """Exactly within a split, by thumbnails of 8 x 8 pixels across the splits."""
    thumbnails = []
    for part in pictures.values():
        assert len({crop.numpy().tobytes() for crop in part}) == len(part)
        means = part.double().unflatten(2, (8, 8)).unflatten(4, (8, 8)).mean((3, 5))
        thumbnails.append(means.flatten(1))
    for one, other in itertools.combinations(thumbnails, 2):
        distance = torch.cdist(one, other) / one.shape[1] ** 0.5
        assert distance.min() > 5  # of 255


def test_files_are_lossless() -> None:
    for file in dataset("photographs").table()["image"].to_pylist():
        assert file[:4] == b"RIFF"
        assert file[8:16] == b"WEBPVP8L"


def test_known_pixels(pictures: dict[str, Tensor]) -> None:
    """The astronaut's suit is orange, the leaves behind the raccoon's face are green."""
    rows = dataset("photographs").select("test")["photograph"].to_pylist()
    means = {
        name: pictures["test"][[i for i, row in enumerate(rows) if row == name]]
        .double()
        .mean((0, 2, 3))
        for name in ("astronaut", "raccoon")
    }
    red, green, blue = means["astronaut"].tolist()
    assert red > green > 60
    assert red > blue
    red, green, blue = means["raccoon"].tolist()
    assert green > red > blue


def test_every_photograph_may_be_redistributed() -> None:
    free = ("CC0-1.0", "CC-BY-2.0", "CC-BY-4.0", "CC-BY-SA-4.0", "LicenseRef-Public-Domain")
    data = dataset("photographs")
    licences = (DATA_FOLDER / "LICENSES.md").read_text(encoding="utf-8")
    for photograph in PHOTOGRAPHS:
        assert photograph.licence in free
        assert f"{photograph.id}: {photograph.author}" in data.attribution
        assert f"`{photograph.id}`" in licences


def test_altered_file_is_refused(tmp_path: Path) -> None:
    for file in ("manifest.json", "photographs.parquet"):
        shutil.copy(DATA_FOLDER / file, tmp_path)
    path = tmp_path / "photographs.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="not the file that the manifest names"):
        photographs("test", tmp_path)
    with pytest.raises(UnknownEntryError):
        photographs("dev")


def test_pictures_are_scaled_upright_and_cut() -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (200, 400, 3), dtype=np.uint8))
    large = noise.resize((1800, 900))
    assert scaled(large).shape == (SHORT_SIDE, 2 * SHORT_SIDE, 3)
    np.testing.assert_array_equal(scaled(noise), np.asarray(noise))  # never enlarged
    turned = io.BytesIO()
    orientation = Image.Exif()
    orientation[0x0112] = 6
    noise.save(turned, "PNG", exif=orientation)
    assert scaled(Image.open(turned)).shape == (400, 200, 3)

    pixels = np.asarray(noise).copy()
    pixels[:64, :64] = 128
    found = dict(crops(pixels))
    assert sorted(found) == [(x, y) for x in range(0, 384, 64) for y in (0, 64, 128) if x or y]
    np.testing.assert_array_equal(found[64, 128], pixels[128:192, 64:128])
    decoded = np.asarray(Image.open(io.BytesIO(webp(found[64, 128]))))
    np.testing.assert_array_equal(decoded, found[64, 128])


# Digits


def test_digits_are_balanced_and_distinct() -> None:
    data = dataset("mnist-5k")
    assert (data.rows, data.columns) == (5_000, ("label", "image"))
    assert data.bytes < 1_200_000
    seen = set()
    for split, count in zip(SPLITS, (350, 50, 100), strict=True):
        images, labels = digits(split)
        assert images.shape == (10 * count, 28, 28)
        assert images.dtype == torch.uint8
        assert labels.dtype == torch.int64
        assert labels.bincount().tolist() == [count] * 10
        assert (images.amax((1, 2)) > 150).all()
        assert (images[:, 0] == 0).float().mean() > 0.99  # a margin
        seen |= {image.numpy().tobytes() for image in images}
    assert len(seen) == 5_000


def test_labels_are_mixed() -> None:
    _, labels = digits("train")
    assert all(len(part.unique()) == 10 for part in labels.split(350))


def test_labels_are_right() -> None:
    """The three nearest digits of train agree with nearly every label of test."""
    (known, labels), (images, truth) = digits("train"), digits("test")
    distance = torch.cdist(images.flatten(1).float(), known.flatten(1).float())
    nearest = labels[distance.topk(3, largest=False).indices].mode(dim=1).values
    assert (nearest == truth).float().mean() > 0.9
