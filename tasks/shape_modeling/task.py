"""The task ``shape-modeling``: the next coordinate of a point on a piece of furniture.

Autoregressive models of meshes and point clouds predict quantised coordinates in a fixed order
(PolyGen, Nash et al. 2020; PointGrow, Sun et al. 2020). A shape is a few dozen points of its
surface from the bottom up, three coordinates each. The last point's coordinate along the same axis
stands three places back, and what the shape is - legs, a board, a body of revolution - shows in all
that came before. What counting makes of the last coordinates is a reference.
"""

from __future__ import annotations

import hashlib
import math
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
from tasks.backbones.positions import sinusoid
from tasks.backbones.stream import LevelStream
from tasks.data.embedded import dataset
from tasks.data.shapes import load_shapes
from tasks.evaluation import beside, parts
from tasks.point_completion.drawing import draw_cloud
from tasks.problems.context_counts import bits_per_symbol
from tasks.shape_modeling.coordinates import AXES, as_points, contexts, draw_streams

SHARPNESS = 1.5
"""See `tasks.backbones.stream.Stream`"""

POSITION_BASE = 100.0
"""Of the sinusoids of points: neighbours are easy to tell apart"""

AXIS_DEVIATION = 0.5
"""Of the vectors that tell the axes apart, at the start"""


@dataclass(frozen=True)
class Setting:
    """Sizes of one scale."""

    points: int
    """Of a shape"""
    levels: int
    """Of a coordinate"""
    dim: int
    heads: int
    layers: int
    dropout: float
    draws: int
    """Of every shape of validation and test"""
    recipe: Recipe


SETTINGS = {
    Scale.TINY: Setting(
        points=16, levels=16, dim=32, heads=4, layers=1, dropout=0.0, draws=1,
        recipe=Recipe(steps=120, batch_size=16, learning_rate=1e-2),
    ),
    Scale.SMALL: Setting(
        points=48, levels=32, dim=64, heads=4, layers=2, dropout=0.0, draws=2,
        recipe=Recipe(steps=600, batch_size=16, learning_rate=1e-2),
    ),
    Scale.BASE: Setting(
        points=256, levels=64, dim=256, heads=8, layers=6, dropout=0.1, draws=2,
        recipe=Recipe(
            steps=3000, batch_size=32, learning_rate=1e-3, warmup_steps=200, evaluations=10,
            precision="bfloat16",
        ),
    ),
}  # fmt: skip

COUNTED = 8
"""Draws of every training shape that are counted for the references"""

_AT_ONCE = 64
_SHOWN, _DRAWN, _SIDE = 4, 3, 96
_GIVEN, _MADE = (90, 90, 90), (31, 90, 180)


@register_task(
    TaskInfo(
        id="shape-modeling",
        title="Modelling of shapes",
        description="The next coordinate of points on a piece of furniture, from the bottom up: 48 "
        "points of 32 levels a coordinate at scale small, 256 of 64 at base.",
        backbones={Pattern.CAUSAL_SELF: "stream"},
        metrics=(
            Metric(
                "bits_per_coordinate",
                "bit/coordinate",
                higher_is_better=False,
                help="Cross-entropy of the level, from all coordinates before.",
            ),
            Metric(
                "bits_height",
                "bit/coordinate",
                higher_is_better=False,
                help="Of heights alone, by which points are sorted.",
                headline=False,
            ),
            Metric(
                "bits_ground",
                "bit/coordinate",
                higher_is_better=False,
                help="Of the two other coordinates.",
                headline=False,
            ),
        ),
        references=(
            Reference(
                "frequency",
                "bits_per_coordinate",
                "Frequency of the levels along each axis in training.",
            ),
            Reference(
                "previous-point",
                "bits_per_coordinate",
                "Their frequency given the previous point's coordinate along that axis.",
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="sweethome3d-furniture",
    )
)
class ShapeModeling(Task):
    """Points on furniture, coordinate by coordinate."""

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        """See `cab.Task`."""
        super().__init__(pattern, scale, data_dir)
        self.setting = SETTINGS[scale]
        corpus = load_shapes(self.info.dataset)
        self.shapes = {
            "train": corpus.train.points,
            "validation": corpus.validation.points,
            "test": corpus.test.points,
        }

    @property
    def data_hash(self) -> str:
        """Hash of the shapes and of what is made of them."""
        setting = self.setting
        made = (setting.points, setting.levels, setting.draws)
        text = f"{dataset(self.info.dataset).data_hash} {made}"
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return self.setting.recipe

    def length(self) -> tuple[int, int]:
        """Coordinates of a shape."""
        return AXES * self.setting.points, AXES * self.setting.points

    def build(self, slots: Slots) -> nn.Module:
        """Places start as the sinusoid of the point plus a random vector of the axis."""
        setting = self.setting
        point = sinusoid(setting.points, setting.dim, POSITION_BASE)
        axis = AXIS_DEVIATION * torch.randn(AXES, setting.dim)
        places = (point[:, None] + axis).flatten(0, 1)
        return LevelStream(
            slots, places, levels=setting.levels, heads=setting.heads, layers=setting.layers,
            sharpness=SHARPNESS, dropout=setting.dropout,
        )  # fmt: skip

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Random shapes, turned and sampled afresh: ``coordinates`` (B, L)."""
        train = self.shapes["train"]
        rows = torch.randint(len(train), (self.recipe.batch_size,), generator=generator)
        return {"coordinates": self._draw(train[rows], generator)}

    def _draw(self, shapes: Tensor, generator: torch.Generator) -> Tensor:
        return draw_streams(shapes, self.setting.points, self.setting.levels, generator)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross-entropy in nats per coordinate."""
        streams = batch["coordinates"]
        return F.cross_entropy(model(streams).flatten(0, 1), streams.flatten())

    def causal_inputs(self) -> tuple[str, ...]:
        """See `cab.Task.causal_inputs`."""
        return ("coordinates",)

    def causal_outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """(B, L, levels) scores of each coordinate, from those before it."""
        return model(batch["coordinates"])

    def held_out(self, split: Split, seed: int) -> Tensor:
        """(N, L) streams that a split is evaluated on; the seed draws points and turns."""
        shapes = self.shapes[split].repeat(self.setting.draws, 1, 1)
        return self._draw(shapes, seeds.evaluation(seed, split))

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """Over all shapes of a split, `Setting.draws` times."""
        bits = []
        for part in parts({"coordinates": self.held_out(split, seed)}, _AT_ONCE):
            scores = model(beside(model, part)["coordinates"]).float().cpu()
            nats = F.cross_entropy(scores.transpose(1, 2), part["coordinates"], reduction="none")
            bits.append(nats.double() / math.log(2))
        by_axis = torch.cat(bits).unflatten(1, (-1, AXES)).mean((0, 1))
        return {
            "bits_per_coordinate": by_axis.mean().item(),
            "bits_height": by_axis[0].item(),
            "bits_ground": by_axis[1:].mean().item(),
        }

    def references(self, seed: int) -> dict[str, float]:
        """What counting in draws of the training shapes makes of test coordinates."""
        levels = self.setting.levels
        drawn = {
            "train": self._draw(
                self.shapes["train"].repeat(COUNTED, 1, 1), seeds.generator(0, "statistics")
            ),
            "test": self.held_out("test", seed),
        }
        seen = {split: contexts(streams, levels) for split, streams in drawn.items()}

        def bits(count: int) -> float:
            train, test = ((seen[s][:count], drawn[s]) for s in ("train", "test"))
            return bits_per_symbol(train, test, levels)

        return {"frequency": bits(1), "previous-point": bits(2)}

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """Test shapes whose upper half of points is drawn from the model, beside the whole."""
        assert isinstance(model, LevelStream)
        held = self.held_out("test", seed)
        whole = held[torch.arange(_SHOWN) * len(self.shapes["test"]) // _SHOWN]
        known = self.setting.points // 2
        generator = seeds.evaluation(seed, "test", "completions")
        drawn = model.completed(whole.repeat_interleave(_DRAWN, 0), AXES * known, generator)
        clouds = as_points(whole, self.setting.levels).numpy()
        made = as_points(drawn, self.setting.levels).unflatten(0, (_SHOWN, -1)).numpy()
        tiles = []
        for cloud, completions in zip(clouds, made, strict=True):
            row = [draw_cloud(cloud[:known], _GIVEN, _SIDE)]
            row += [draw_cloud(one, _MADE, _SIDE) for one in completions]
            tiles.append([*row, draw_cloud(cloud, _GIVEN, _SIDE)])
        return [
            pictures.image(
                "completions",
                f"Lower halves of the points of test shapes, completed {_DRAWN} times by draws "
                "from the model, and the whole.",
                pictures.grid(tiles),
            )
        ]
