"""FFHQ and CelebA-HQ as folders of pictures: what is read, how it is split, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cab import Pattern, Scale
from cab.errors import DataError
from tasks.super_resolution.image_folders import folder_problems, hash_folders, read_folders
from tasks.super_resolution.picture_sets import Sizes
from tasks.super_resolution.sr3_task import SuperResolutionSR3
from tasks.super_resolution.task import SuperResolution

SIZES = Sizes(low=4, high=12, counts={"train": 6, "validation": 3, "test": 4})


def picture(path: Path, colour: int, width: int = 16, height: int = 16) -> Path:
    """Of one colour, so that it is known again after any resizing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (colour, 0, 255 - colour)).save(path)
    return path


def published(folder: Path, faces: int = 12, tests: int = 6) -> Path:
    """FFHQ in folders of thousands with its other files, CelebA-HQ flat."""
    for i in range(faces):
        picture(folder / "ffhq" / f"{i // 5:02}000" / f"{i:05}.png", 10 * i)
    for i in range(tests):
        picture(folder / "celebahq" / f"{i:05}.png", 200 + i)
    (folder / "celebahq").mkdir(exist_ok=True)
    (folder / "ffhq" / "LICENSE.txt").write_text("CC BY-NC-SA")
    (folder / "celebahq" / "._00000.png").write_bytes(b"Mac OS X")
    return folder


def colours(pictures: object) -> list[int]:
    drawn = pictures[torch.arange(len(pictures))]  # type: ignore[arg-type, index]
    assert drawn.shape[1:] == (3, SIZES.high, SIZES.high)
    assert (drawn == drawn[..., :1, :1]).all()
    return drawn[:, 0, 0, 0].tolist()


def test_ffhq_trains_and_validates_celebahq_tests(tmp_path: Path) -> None:
    sets = read_folders(published(tmp_path), SIZES)
    train, validation = colours(sets["train"]), colours(sets["validation"])
    assert (len(train), len(validation)) == (6, 3)
    assert not set(train) & set(validation)
    assert all(value < 200 for value in train + validation)
    assert colours(sets["test"]) == [200, 201, 202, 203]


def test_the_split_is_by_name_alone(tmp_path: Path) -> None:
    """The same in another place, and a picture that is added moves few others."""
    first = read_folders(published(tmp_path / "a"), SIZES)
    again = read_folders(published(tmp_path / "b"), SIZES)
    assert colours(first["validation"]) == colours(again["validation"])
    assert colours(first["train"]) == colours(again["train"])
    picture(tmp_path / "a" / "ffhq" / "90000" / "90000.png", 150)
    more = set(colours(read_folders(tmp_path / "a", SIZES)["validation"]))
    assert len(more & set(colours(first["validation"]))) >= 2


def test_pictures_are_cropped_in_the_middle_and_resized(tmp_path: Path) -> None:
    published(tmp_path)
    pixels = np.zeros((24, 40, 3), np.uint8)
    pixels[:, 8:32] = 90
    pixels[:, 8 + 6 : 32 - 6, 1] = 200
    Image.fromarray(pixels).save(tmp_path / "celebahq" / "00000.png")
    Image.new("L", (16, 20), 33).save(tmp_path / "celebahq" / "00001.webp", lossless=True)
    Image.new("RGBA", (16, 16), (1, 2, 3, 9)).save(tmp_path / "celebahq" / "00002.PNG")
    test = read_folders(tmp_path, SIZES)["test"]
    first, grey, second, seen = test[torch.tensor([0, 2, 1, 3])]
    assert (first[0] == 90).all()
    assert first[1, 6].tolist()[0] < 120 < first[1, 6].tolist()[6]
    assert torch.equal(first, first.flip(-1))
    assert (grey == 33).all()
    assert second[0, 0, 0] == 201
    assert seen[:, 0, 0].tolist() == [1, 2, 3]


def test_each_file_is_read_once(tmp_path: Path) -> None:
    test = read_folders(published(tmp_path), SIZES)["test"]
    rows = torch.tensor([2, 0, 2])
    before = test[rows]
    (tmp_path / "celebahq" / "00002.png").unlink()
    (tmp_path / "celebahq" / "00000.png").unlink()
    assert torch.equal(test[rows], before)


def test_hash_follows_names_and_sizes(tmp_path: Path) -> None:
    folder = published(tmp_path / "a")
    first = hash_folders(folder)
    assert hash_folders(published(tmp_path / "b")) == first
    (folder / "ffhq" / "LICENSE.txt").write_text("another")
    assert hash_folders(folder) == first
    (folder / "celebahq" / "00003.png").rename(folder / "celebahq" / "10003.png")
    renamed = hash_folders(folder)
    picture(folder / "celebahq" / "10003.png", 3, width=40)
    assert len({first, renamed, hash_folders(folder)}) == 3


def test_good_folders_have_no_problem(tmp_path: Path) -> None:
    assert list(folder_problems(published(tmp_path), SIZES)) == []


def test_every_missing_folder_is_reported(tmp_path: Path) -> None:
    problems = list(folder_problems(tmp_path, SIZES))
    assert len(problems) == 2
    for problem, part in zip(problems, ("ffhq", "celebahq"), strict=True):
        assert problem.startswith(f"{tmp_path / part} is no folder; expected a folder with ffhq/")
    with pytest.raises(DataError, match="ffhq is no folder"):
        read_folders(tmp_path, SIZES)


def test_too_few_pictures_are_counted(tmp_path: Path) -> None:
    published(tmp_path, faces=3, tests=0)
    problems = list(folder_problems(tmp_path, SIZES))
    assert "ffhq has 3 pictures, 4 are needed" in problems[0]
    assert "celebahq has 0 pictures, 4 are needed" in problems[1]


def test_every_bad_file_is_reported(tmp_path: Path) -> None:
    published(tmp_path, faces=9)
    (tmp_path / "ffhq" / "00000" / "00002.png").write_text("not a picture")
    whole = (tmp_path / "celebahq" / "00001.png").read_bytes()
    (tmp_path / "celebahq" / "00001.png").write_bytes(whole[: len(whole) // 2])
    picture(tmp_path / "celebahq" / "00002.png", 1, width=30, height=11)
    problems = list(folder_problems(tmp_path, SIZES))
    assert len(problems) == 3
    assert all("\n" not in problem for problem in problems)
    wanted = {
        "00002.png cannot be read as a picture": "ffhq",
        "00001.png cannot be read as a picture": "celebahq",
        "00002.png is 30 x 11 pixels, this scale needs 12 x 12": "celebahq",
    }
    for words, part in wanted.items():
        assert any(words in problem and f"/{part}/" in problem for problem in problems)
    test = read_folders(tmp_path, SIZES)["test"]
    with pytest.raises(DataError, match=r"00001\.png cannot be read as a picture .*expected"):
        test[torch.tensor([0, 1])]


@pytest.mark.parametrize("cls", [SuperResolution, SuperResolutionSR3])
def test_a_task_reads_the_folders(
    tmp_path: Path, cls: type[SuperResolution] | type[SuperResolutionSR3]
) -> None:
    """Faces are mirrored, never turned; the check asks for what scale paper needs."""
    for i in range(40):
        path = picture(tmp_path / "ffhq" / f"{i:05}.jpg", 5 * i, 32, 32)
        pixels = np.array(Image.open(path))
        pixels[:8] = 255
        Image.fromarray(pixels).save(path, quality=95)
        picture(tmp_path / "celebahq" / f"{i:05}.jpg", i, 32, 32)
    task = cls(Pattern.NONCAUSAL_SELF, Scale.TINY, tmp_path)
    assert task.dataset == tmp_path.name
    assert task.data_hash == hash_folders(tmp_path)
    wanted = task.training_batch(torch.Generator().manual_seed(0))["wanted"]
    assert (wanted[..., 0, :] > 0.8).all()
    assert (wanted[:, 1, -1] < -0.8).all()
    problems = cls.data_problems(tmp_path)
    for problem, (part, needed) in zip(problems, (("ffhq", 51), ("celebahq", 100)), strict=True):
        assert problem.startswith(f"{tmp_path / part} has 40 pictures, {needed} are needed")
