"""The task ``distance-field``: distances from places in space to a surface of few known points.

Furniture and other things as point clouds, turned about the vertical at random; 64 points of the
surface are the source and 128 places the queries at scale small. Queries know their place alone and
do not see each other, so without attention the answer is the same for all shapes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cab import (
    Artifact,
    Batch,
    Metric,
    Pattern,
    Recipe,
    Reference,
    Scale,
    Slots,
    Task,
    TaskInfo,
    register_task,
    seeds,
)
from cab.task_contract import Split
from tasks.artifacts import pictures
from tasks.data.embedded import dataset
from tasks.data.shapes import load_shapes
from tasks.distance_field.drawing import draw_slice, slice_places
from tasks.distance_field.model import PointReader
from tasks.distance_field.sampling import NOISE, distances, draw
from tasks.evaluation import answers
from tasks.point_completion.drawing import draw_cloud


@dataclass(frozen=True)
class Setting:
    """Sizes of one scale."""

    known: int
    """Points of the surface"""
    queries: int
    """Places asked for at once"""
    dim: int
    heads: int
    layers: int
    draws: dict[Split, int]
    """Times that every shape of a split is evaluated, under another turn and other points"""


SETTINGS = {
    Scale.TINY: Setting(32, 64, 32, 4, layers=1, draws={"validation": 1, "test": 1}),
    Scale.SMALL: Setting(64, 128, 64, 4, layers=2, draws={"validation": 2, "test": 2}),
    Scale.BASE: Setting(256, 512, 256, 8, layers=4, draws={"validation": 2, "test": 2}),
}

RECIPES = {
    Scale.TINY: Recipe(steps=150, batch_size=16, learning_rate=5e-3, betas=(0.9, 0.999)),
    Scale.SMALL: Recipe(steps=700, batch_size=16, learning_rate=3e-3, betas=(0.9, 0.999)),
    Scale.BASE: Recipe(
        steps=6000,
        batch_size=32,
        learning_rate=5e-4,
        betas=(0.9, 0.999),
        evaluations=8,
        precision="bfloat16",
    ),
}

SHAPES_AT_ONCE = 32
SHOWN, SLICE, CLOUD = 4, 64, 192


@register_task(
    TaskInfo(
        id="distance-field",
        title="Distance fields",
        description="How far places in space are from the surface of a thing of which 64 points "
        "are known (scale small). Half of the places lie near the surface, half anywhere in the "
        "cube around it. The shapes are furniture, persons, plants, vehicles and household "
        "things, turned at random; versions of a shape are in one split.",
        backbones={Pattern.NONCAUSAL_CROSS: "point-reader"},
        metrics=(
            Metric(
                "mae",
                "0.001 side",
                higher_is_better=False,
                help="Absolute error of distances, times 1000; the longest side of a shape is 1.",
            ),
            Metric(
                "mae_near",
                "0.001 side",
                higher_is_better=False,
                help="At places drawn near the surface.",
                headline=False,
            ),
            Metric(
                "mae_anywhere",
                "0.001 side",
                higher_is_better=False,
                help="At places drawn anywhere in the cube.",
                headline=False,
            ),
        ),
        references=(
            Reference("median", "mae", "The median distance in training, at every place."),
            Reference(
                "nearest-known",
                "mae",
                "The distance to the nearest known point, which is never too small.",
            ),
            Reference(
                "nearest-known-fitted",
                "mae",
                "A line of that distance, fitted to training shapes by least squares.",
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="sweethome3d-furniture",
    )
)
class DistanceField(Task):
    """Distances to the surfaces of things."""

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        self.setting = SETTINGS[scale]
        corpus = load_shapes(self.info.dataset)
        self.shapes = {
            "train": corpus.train.points,
            "validation": corpus.validation.points,
            "test": corpus.test.points,
        }
        """(N, P, 3) by split"""

    @property
    def data_hash(self) -> str:
        """Hash of the shapes and of what is asked of them."""
        setting = self.setting
        settings = (NOISE, setting.known, setting.queries, sorted(setting.draws.items()))
        data = dataset(self.info.dataset).data_hash
        return hashlib.sha256(f"{data} {settings}".encode()).hexdigest()

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return RECIPES[self.scale]

    def length(self) -> tuple[int, int]:
        """Queries and known points."""
        return self.setting.queries, self.setting.known

    def build(self, slots: Slots) -> nn.Module:
        """See `cab.Task.build`."""
        setting = self.setting
        return PointReader(
            slots,
            max_length=max(self.length()),
            dim=setting.dim,
            heads=setting.heads,
            layers=setting.layers,
        )

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Random shapes, each under a fresh turn, with fresh points and places."""
        train = self.shapes["train"]
        rows = torch.randint(len(train), (self.recipe.batch_size,), generator=generator)
        return self._draw(train[rows], generator)

    def _draw(self, shapes: Tensor, generator: torch.Generator) -> Batch:
        return draw(shapes, self.setting.known, self.setting.queries, generator)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean absolute error, times 20 to be of the order of one."""
        return 20 * F.l1_loss(model(batch), batch["target"])

    def questions(self, split: Split, seed: int) -> list[Batch]:
        """Every shape of a split; the seed draws turns, points and places."""
        generator = seeds.evaluation(seed, split)
        shapes = self.shapes[split].repeat(self.setting.draws[split], 1, 1)
        return [self._draw(part, generator) for part in shapes.split(SHAPES_AT_ONCE)]

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """Errors on `questions`."""
        return scores(lambda batch: answers(model, batch), self.questions(split, seed))

    def references(self, seed: int) -> dict[str, float]:
        """Errors of distances to known points, on the same test questions."""
        fitted = self._draw(self.shapes["train"], seeds.generator(0, "statistics"))
        target = fitted["target"].double().flatten()
        known = nearest_known(fitted).flatten()
        design = torch.stack([known, torch.ones_like(known)], dim=1)
        slope, offset = torch.linalg.lstsq(design, target[:, None]).solution[:, 0]
        median = target.median()
        asked = self.questions("test", seed)
        return {
            "median": scores(lambda batch: median.expand_as(batch["target"]), asked)["mae"],
            "nearest-known": scores(nearest_known, asked)["mae"],
            "nearest-known-fitted": scores(
                lambda batch: slope * nearest_known(batch) + offset, asked
            )["mae"],
        }

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """Slices through the field around test shapes: what is known, the model, the truth."""
        test = self.shapes["test"]
        rows = torch.arange(SHOWN) * len(test) // SHOWN
        shapes = test[rows]
        generator = seeds.evaluation(seed, "test", "shown")
        chosen = torch.rand(shapes.shape[:2], generator=generator).topk(self.setting.known).indices
        known = shapes.gather(1, chosen[..., None].expand(-1, -1, 3))
        places = slice_places(SLICE)
        # In parts of the length trained with, spread over the slice.
        count = -(-len(places) // self.setting.queries)
        said = torch.empty(SHOWN, len(places))
        for start in range(count):
            part = slice(start, None, count)
            asked = places[part].expand(SHOWN, -1, -1)
            said[:, part] = answers(model, {"known": known, "asked": asked})
        truth = distances(places.expand(SHOWN, -1, -1), shapes)
        zoom = CLOUD // SLICE
        tiles = [
            [
                draw_cloud(known[i].numpy(), (80, 80, 80), CLOUD),
                *(
                    draw_slice(field[i], SLICE).repeat(zoom, 0).repeat(zoom, 1)
                    for field in (said, truth)
                ),
            ]
            for i in range(SHOWN)
        ]
        caption = (
            "Test shapes: the known points; distances on an upright slice through the middle, "
            "dark at the surface, by the model; the truth."
        )
        return [pictures.image("slices", caption, pictures.grid(tiles))]


def nearest_known(batch: Batch) -> Tensor:
    """(B, M) distances to the nearest known point, float64."""
    return distances(batch["asked"].double(), batch["known"].double())


def scores(predict: Callable[[Batch], Tensor], questions: Sequence[Batch]) -> dict[str, float]:
    """Every metric of a predictor of (B, M) distances."""
    errors = torch.cat([(predict(b) - b["target"]).double().abs() for b in questions])
    near = torch.cat([b["near"] for b in questions])
    return {
        "mae": 1000 * errors.mean().item(),
        "mae_near": 1000 * errors[near].mean().item(),
        "mae_anywhere": 1000 * errors[~near].mean().item(),
    }
