"""The PCN data set (Yuan et al. 2018) as its release for GRNet and PoinTr lays it out.

    PCN.json                                   categories: taxonomy_id, taxonomy_name, and the ids
                                               of the models under train, val and test
    train/partial/<taxonomy>/<model>/00.pcd    eight views of each training model, to 07.pcd
    val/partial/<taxonomy>/<model>/00.pcd      one view of each other model; test likewise
    <split>/complete/<taxonomy>/<model>.pcd    16,384 points

The PCN.json of PoinTr's code has 28,974 models in train, 800 in val and 1,200 in test. The last two
have as many of each category, so a mean over models is the published mean over categories.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cab import Batch, seeds
from cab.errors import DataError
from cab.task_contract import Split
from tasks.point_completion.pairs import Amounts, some, spread
from tasks.point_completion.pcd import read_pcd

LAYOUT = (
    "expected PCN.json and {train,val,test}/{partial,complete}/<taxonomy>/<model>, with "
    "<model>/00.pcd to 07.pcd below train/partial, <model>/00.pcd below the other partial and "
    "<model>.pcd below complete"
)

TRAINING_VIEWS = 8
COMPLETE_POINTS = 16384
_INDEX = "PCN.json"
_FOLDERS: Mapping[str, str] = {"train": "train", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class Model:
    """Where the clouds of a model lie."""

    partial: tuple[Path, ...]
    complete: Path


class PcnPairs:
    """Views of PCN's models, read file by file; see `tasks.point_completion.pairs.Pairs`.

    Training models are mirrored in x and z at random, as published.
    """

    def __init__(self, folder: Path, amounts: Amounts) -> None:
        """Look for every file, without reading them.

        Raises:
            DataError: the first thing that is missing.
        """
        self.models = read_index(folder)
        self.amounts = amounts
        digest = hashlib.sha256((folder / _INDEX).read_bytes())
        for models in self.models.values():
            for path in (path for model in models for path in (*model.partial, model.complete)):
                try:
                    size = path.stat().st_size
                except OSError as error:
                    raise DataError(f"{path} is missing; {LAYOUT}") from error
                digest.update(f"{path.relative_to(folder)} {size}\n".encode())
        self._data_hash = digest.hexdigest()

    @property
    def data_hash(self) -> str:
        """Of the index and of the size of every file: the whole content would be tens of GB."""
        return self._data_hash

    @property
    def training_shapes(self) -> int:
        """Models to train on."""
        return len(self.models["train"])

    def training_batch(self, size: int, generator: torch.Generator) -> Batch:
        """One random view of random models, mirrored at random.

        Raises:
            DataError: a file cannot be read.
        """
        models = [self.models["train"][i] for i in some(self.training_shapes, size, generator)]
        views = torch.randint(TRAINING_VIEWS, (size,), generator=generator).tolist()
        truth = self.amounts.training_truth
        pairs = [
            self._pair(model, view, truth, generator)
            for model, view in zip(models, views, strict=True)
        ]
        return mirrored(_stacked(pairs), generator)

    def evaluation_batches(self, split: Split, pairs: int, size: int) -> Iterator[Batch]:
        """The one view of each model, and so no more pairs than models.

        Raises:
            DataError: a file cannot be read.
        """
        models = self.models[split]
        rows = spread(len(models), min(len(models), pairs))
        generator = seeds.evaluation(0, split)
        for begin in range(0, len(rows), size):
            part = [models[i] for i in rows[begin : begin + size]]
            yield _stacked([self._pair(m, 0, self.amounts.truth, generator) for m in part])

    def _pair(
        self, model: Model, view: int, truth: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        complete = _read_complete(model.complete)
        if truth < COMPLETE_POINTS:
            complete = resampled(complete, truth, generator)
        return resampled(_read(model.partial[view]), self.amounts.seen, generator), complete


def folder_problems(folder: Path) -> Iterator[str]:
    """Everything in which a folder is not PCN, one line each; every file is read."""
    try:
        splits = read_index(folder)
    except DataError as error:
        yield str(error)
        return
    for models in splits.values():
        for model in models:
            readers = dict.fromkeys(model.partial, _read) | {model.complete: _read_complete}
            for path, read in readers.items():
                if not path.is_file():
                    yield f"{path} is missing; {LAYOUT}"
                    continue
                try:
                    read(path)
                except DataError as error:
                    yield str(error)


def read_index(folder: Path) -> dict[str, tuple[Model, ...]]:
    """By split, the models that PCN.json names.

    Raises:
        DataError: there is no such file, or one of another form, with an empty split, or with a
            model in two splits.
    """
    path = folder / _INDEX
    try:
        categories = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {LAYOUT}") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); {LAYOUT}") from error
    splits: dict[str, tuple[Model, ...]] = {}
    owners: dict[tuple[str, str], str] = {}
    for split, name in _FOLDERS.items():
        try:
            ids = [(str(c["taxonomy_id"]), str(model)) for c in categories for model in c[name]]
        except (TypeError, KeyError) as error:
            raise DataError(
                f"{path} is not a list of categories with taxonomy_id, train, val and test; "
                f"{LAYOUT}"
            ) from error
        if not ids:
            raise DataError(f"{path} has no models in {name}; {LAYOUT}")
        for taxonomy, model in ids:
            if owners.setdefault((taxonomy, model), name) != name:
                other = owners[taxonomy, model]
                raise DataError(f"{path} has model {taxonomy}/{model} in {other} and in {name}")
        views = TRAINING_VIEWS if split == "train" else 1
        splits[split] = tuple(_model(folder / name, *each, views) for each in ids)
    return splits


def resampled(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(count, 3) of (N, 3) points: a random part, or all and then some of them again."""
    return points[some(len(points), count, generator)]


def mirrored(batch: Batch, generator: torch.Generator) -> Batch:
    """Both clouds of a pair mirrored in x, in z, in both or not at all, with equal chance."""
    size = len(batch["partial"])
    x, z = (1 - 2 * torch.randint(2, (2, size, 1), generator=generator)).float()
    factors = torch.stack([x, torch.ones_like(x), z], dim=-1)
    return {name: points * factors for name, points in batch.items()}


def _model(folder: Path, taxonomy: str, model: str, views: int) -> Model:
    partial = folder / "partial" / taxonomy / model
    return Model(
        tuple(partial / f"{view:02}.pcd" for view in range(views)),
        folder / "complete" / taxonomy / f"{model}.pcd",
    )


def _read(path: Path) -> Tensor:
    points = torch.from_numpy(read_pcd(path))
    if not len(points):
        raise DataError(f"{path} has no points")
    return points


def _read_complete(path: Path) -> Tensor:
    points = _read(path)
    if len(points) != COMPLETE_POINTS:
        raise DataError(f"{path} has {len(points)} points; a complete cloud has {COMPLETE_POINTS}")
    return points


def _stacked(pairs: list[tuple[Tensor, Tensor]]) -> Batch:
    partial, complete = zip(*pairs, strict=True)
    return {"partial": torch.stack(partial), "complete": torch.stack(complete)}
