"""PCN as published: files of points, the layout, every defect in a line of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cab import Pattern, Scale
from cab.errors import DataError
from tasks.point_completion.pcd import read_pcd
from tasks.point_completion.pcn import PcnPairs, mirrored, read_index, resampled
from tasks.point_completion.task import PointCompletion

Floats = NDArray[np.float32]

CATEGORIES = [
    {
        "taxonomy_id": "02691156",
        "taxonomy_name": "airplane",
        "train": ["1a04e3", "10155655"],
        "val": ["4bae46"],
        "test": ["1d63eb"],
    },
    {
        "taxonomy_id": "02958343",
        "taxonomy_name": "car",
        "train": ["77a759"],
        "val": ["aa1234"],
        "test": ["bb5678"],
    },
]


def header(points: int, data: str = "binary", fields: str = "x y z") -> str:
    """As Open3D and the Point Cloud Library write it."""
    width = len(fields.split())
    return (
        "# .PCD v0.7 - Point Cloud Data file format\n"
        f"VERSION 0.7\nFIELDS {fields}\nSIZE{' 4' * width}\nTYPE{' F' * width}\n"
        f"COUNT{' 1' * width}\nWIDTH {points}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\n"
        f"POINTS {points}\nDATA {data}\n"
    )


def write_binary(path: Path, points: Floats) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header(len(points)).encode() + points.astype("<f4").tobytes())


def write_ascii(path: Path, points: Floats) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{x} {y} {z}\n" for x, y, z in points.tolist())
    path.write_text(header(len(points), "ascii") + lines, encoding="ascii")


def model_cloud(model: str, part: int, count: int) -> Floats:
    """The first coordinate of a model's points says which model and which view it is."""
    rng = np.random.default_rng(len(model) + part)
    points = rng.random((count, 3), dtype=np.float32) - np.float32(0.5)
    points[:, 1] = int(model[:4], 16) + part / 16
    return points


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PCN in little: views as text, complete clouds in binary."""
    folder = tmp_path_factory.mktemp("original") / "PCN"
    folder.mkdir()
    (folder / "PCN.json").write_text(json.dumps(CATEGORIES), encoding="utf-8")
    for category in CATEGORIES:
        for split in ("train", "val", "test"):
            for model in category[split]:
                tail = f"{category['taxonomy_id']}/{model}"
                for view in range(8 if split == "train" else 1):
                    path = folder / f"{split}/partial/{tail}/{view:02}.pcd"
                    write_ascii(path, model_cloud(model, 1 + view, 50 + view))
                write_binary(folder / f"{split}/complete/{tail}.pcd", model_cloud(model, 0, 16384))
    return folder


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "PCN"
    shutil.copytree(original, folder, copy_function=lambda a, b: Path(b).symlink_to(a))
    # What a test breaks must not be the original.
    (folder / "PCN.json").unlink()
    shutil.copy(original / "PCN.json", folder)
    return folder


# Files of points


@pytest.mark.parametrize("write", [write_binary, write_ascii])
def test_points_are_read(tmp_path: Path, write: Callable[[Path, Floats], None]) -> None:
    points = np.array([[0.25, -1.5, 3e-7], [1, 2, 3]], np.float32)
    write(tmp_path / "a.pcd", points)
    found = read_pcd(tmp_path / "a.pcd")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, points)


def test_other_fields_are_skipped(tmp_path: Path) -> None:
    """Packed records with fields of other types around the coordinates, and one with two values."""
    record = np.dtype([("n", "<u2"), ("z", "<f8"), ("h", "<f4", (2,)), ("y", "<f8"), ("x", "<f8")])
    rows = np.array([(7, 3.0, (8, 9), 2.0, 1.0), (7, 6.0, (8, 9), 5.0, 4.0)], record)
    entries = (
        "VERSION .7\nFIELDS n z h y x\nSIZE 2 8 4 8 8\nTYPE U F F F F\nCOUNT 1 1 2 1 1\n"
        "WIDTH 2\nHEIGHT 1\nPOINTS 2\nDATA "
    )
    expected = [[1, 2, 3], [4, 5, 6]]
    path = tmp_path / "a.pcd"
    path.write_bytes(f"{entries}binary\n".encode() + rows.tobytes() + b"padding")
    assert read_pcd(path).tolist() == expected
    path.write_text(f"{entries}ascii\n7 3 8 9 2 1\n7 6 8 9 5 4\n", encoding="ascii")
    assert read_pcd(path).tolist() == expected


def test_count_may_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.pcd"
    path.write_text("FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nPOINTS 1\nDATA ascii\n1 2 3\n")
    assert read_pcd(path).tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("ply\nformat ascii\n", "no PCD header: a line DATA is missing"),
        ("FIELDS x y z\nTYPE F F F\nDATA ascii\n", "no SIZE and no POINTS"),
        (header(1).replace("SIZE 4 4 4", "SIZE 4 4"), "differ in length"),
        (header(1, fields="x y w"), "not one field z"),
        (header(1, fields="x y z z"), "not one field z"),
        (header(1).replace("TYPE F F F", "TYPE F F X"), "field z has type X of 4 bytes"),
        (header(1).replace("POINTS 1", "POINTS many"), "invalid literal for int.*many"),
        (header(2) + "x" * 23, "23 of 24 bytes of points: the file is truncated"),
        (header(2, "ascii") + "1 2 3\n4 5\n", "5 numbers in the text of 2 points of 3 each"),
        (header(1, "ascii") + "1 2 three\n", "could not convert string to float"),
        (header(1, "ascii") + "1 2 nan\n", "a coordinate is not a finite number"),
        (header(1, "binary_compressed") + "x" * 12, "binary_compressed is not supported.*convert"),
        ("FIELDS \xe9\n", "can't decode"),
    ],
)
def test_strange_files_are_refused(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "a.pcd"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=f"a\\.pcd: .*{problem}"):
        read_pcd(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.pcd cannot be read \(No such file"):
        read_pcd(tmp_path / "a.pcd")


# The layout


def test_index_gives_the_published_paths(original: Path) -> None:
    models = read_index(original)
    assert {split: len(found) for split, found in models.items()} == {
        "train": 3,
        "validation": 2,
        "test": 2,
    }
    first = models["train"][0]
    assert [path.name for path in first.partial] == [f"{view:02}.pcd" for view in range(8)]
    assert first.partial[7] == original / "train/partial/02691156/1a04e3/07.pcd"
    assert models["validation"][1].partial == (original / "val/partial/02958343/aa1234/00.pcd",)
    assert models["test"][0].complete == original / "test/complete/02691156/1d63eb.pcd"


def test_sound_folder_has_no_problems(original: Path) -> None:
    assert PointCompletion.data_problems(original) == []


def test_pairs_are_of_one_model_and_of_the_split(original: Path) -> None:
    """Heights tell the model and, in sixteenths, the view; mirrors leave them."""
    task = PointCompletion(Pattern.NONCAUSAL_CROSS, Scale.TINY, original)
    assert task.dataset == "PCN"
    amounts = task.amounts
    known = {
        split: {int(model[:4], 16) for category in CATEGORIES for model in category[split]}
        for split in ("train", "val", "test")
    }
    batch = task.training_batch(torch.Generator().manual_seed(0))
    assert batch["partial"].shape == (task.recipe.batch_size, amounts.seen, 3)
    assert batch["complete"].shape == (task.recipe.batch_size, amounts.training_truth, 3)
    heights, views = batch["complete"][..., 1], batch["partial"][..., 1]
    assert set(heights[:, 0].tolist()) == known["train"]
    assert (heights == heights[:, :1]).all()
    parts = 16 * (views - heights[:, :1])
    assert (parts == parts[:, :1]).all()
    assert len(set(parts[:, 0].tolist())) > 3
    assert set(parts[:, 0].tolist()) <= set(range(1, 9))
    for split, name in (("validation", "val"), ("test", "test")):
        (evaluated,) = task.pairs.evaluation_batches(split, 9, 50)  # type: ignore[arg-type]
        assert evaluated["complete"].shape == (2, amounts.truth, 3)
        assert set(evaluated["complete"][:, 0, 1].tolist()) == known[name]
        (again,) = task.pairs.evaluation_batches(split, 9, 50)  # type: ignore[arg-type]
        assert all(torch.equal(evaluated[key], again[key]) for key in again)


def test_paper_scale_reads_whole_clouds(original: Path) -> None:
    task = PointCompletion(Pattern.NONCAUSAL_CROSS, Scale.PAPER, original)
    batch = next(iter(task.pairs.evaluation_batches("test", 2, 2)))
    assert batch["partial"].shape == (2, 2048, 3)
    assert torch.equal(batch["complete"][0], torch.from_numpy(model_cloud("1d63eb", 0, 16384)))
    assert task.recipe.steps == 300  # one batch of 48 an epoch, from three models


def test_views_are_sampled_or_filled_up() -> None:
    points = torch.arange(30.0).view(10, 3)
    generator = torch.Generator().manual_seed(0)
    some = resampled(points, 4, generator)
    assert len({row[0] for row in some.tolist()}) == 4
    filled = resampled(points, 25, generator)[:, 0].tolist()
    assert {filled.count(value) for value in points[:, 0].tolist()} == {2, 3}


def test_both_clouds_of_a_pair_are_mirrored_alike() -> None:
    ones = torch.ones(200, 2, 3)
    batch = mirrored({"partial": ones, "complete": ones}, torch.Generator().manual_seed(0))
    assert torch.equal(batch["partial"], batch["complete"])
    assert torch.equal(batch["partial"][:, 0], batch["partial"][:, 1])
    kinds = [tuple(row) for row in batch["partial"][:, 0].tolist()]
    assert set(kinds) == {(x, 1, z) for x in (-1, 1) for z in (-1, 1)}
    assert min(kinds.count(kind) for kind in set(kinds)) > 25


def test_hash_follows_index_and_files(copy: Path) -> None:
    amounts = PointCompletion(Pattern.NONCAUSAL_CROSS, Scale.TINY, copy).amounts
    before = PcnPairs(copy, amounts).data_hash
    assert PcnPairs(copy, amounts).data_hash == before
    path = copy / "val/partial/02691156/4bae46/00.pcd"
    path.unlink()
    write_ascii(path, model_cloud("4bae46", 1, 49))
    changed = PcnPairs(copy, amounts).data_hash
    assert changed != before
    (copy / "PCN.json").write_text(json.dumps(CATEGORIES[::-1]), encoding="utf-8")
    assert PcnPairs(copy, amounts).data_hash != changed


def test_every_problem_is_listed(copy: Path) -> None:
    missing = copy / "train/partial/02691156/1a04e3/05.pcd"
    short = copy / "test/complete/02958343/bb5678.pcd"
    broken = copy / "val/partial/02958343/aa1234/00.pcd"
    empty = copy / "test/partial/02691156/1d63eb/00.pcd"
    for path in (missing, short, broken, empty):
        path.unlink()
    write_binary(short, model_cloud("bb5678", 0, 16383))
    broken.write_text("nothing")
    write_ascii(empty, np.empty((0, 3), np.float32))
    problems = PointCompletion.data_problems(copy)
    assert len(problems) == 4
    assert all("\n" not in problem for problem in problems)
    assert problems[0].startswith(f"{missing} is missing; expected PCN.json and ")
    assert problems[1] == f"{broken}: no PCD header: a line DATA is missing"
    assert problems[2] == f"{empty} has no points"
    assert problems[3] == f"{short} has 16383 points; a complete cloud has 16384"
    with pytest.raises(DataError, match=r"05\.pcd is missing; expected"):
        PointCompletion(Pattern.NONCAUSAL_CROSS, Scale.TINY, copy)


def swapped(split: str, other: str) -> object:
    return [{**CATEGORIES[0], split: CATEGORIES[0][other]}]


@pytest.mark.parametrize(
    ("index", "problem"),
    [
        ({"taxonomy_id": "1"}, "is not a list of categories"),
        ([1], "is not a list of categories"),
        ([{"taxonomy_id": "1", "train": ["a"], "val": ["b"]}], "is not a list of categories"),
        ([{**CATEGORIES[0], "val": []}], "has no models in val"),
        (swapped("test", "val"), "model 02691156/4bae46 in val and in test"),
    ],
)
def test_strange_index_is_refused(copy: Path, index: object, problem: str) -> None:
    (copy / "PCN.json").write_text(json.dumps(index), encoding="utf-8")
    (found,) = PointCompletion.data_problems(copy)
    assert problem in found
    with pytest.raises(DataError, match=problem):
        PointCompletion(Pattern.NONCAUSAL_CROSS, Scale.TINY, copy)


def test_missing_or_damaged_index_is_refused(copy: Path) -> None:
    (copy / "PCN.json").write_text("[")
    assert "is not JSON" in PointCompletion.data_problems(copy)[0]
    (copy / "PCN.json").unlink()
    (problem,) = PointCompletion.data_problems(copy)
    assert "PCN.json cannot be read (No such file" in problem
    assert PointCompletion.data_problems(copy / "nowhere") != []
