"""The task ``point-completion``."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from cab import (
    Artifact,
    Batch,
    Metric,
    Pattern,
    Recipe,
    Scale,
    Slots,
    Task,
    TaskInfo,
    register_task,
)
from cab.task_contract import Split
from tasks.artifacts import pictures
from tasks.evaluation import device_of
from tasks.point_completion.chamfer import chamfer_l1, completion_scores
from tasks.point_completion.drawing import draw_cloud
from tasks.point_completion.grouper import Stage
from tasks.point_completion.pairs import Amounts, Pairs
from tasks.point_completion.pcn import COMPLETE_POINTS, PcnPairs, folder_problems
from tasks.point_completion.pointr import PUBLISHED, Geometry, PoinTr
from tasks.point_completion.views import EmbeddedPairs

_ALL_MODELS = 1 << 31

_PART = 8
"""A witness looks at every so manyth pair"""

_SHOWN, _TILE = 4, 150
_SEEN_COLOUR, _COMPLETED_COLOUR, _TRUE_COLOUR = (70, 110, 160), (190, 90, 40), (80, 80, 80)


@dataclass(frozen=True)
class Setting:
    """Everything about one scale but the recipe."""

    geometry: Geometry
    self_attention_memory: int
    """Proxies that the decoder reads where the self slots are measured; 0: all"""
    amounts: Amounts
    threshold: float
    """Of the F-Score"""
    evaluation_batch: int


SETTINGS: Mapping[Scale, Setting] = {
    Scale.TINY: Setting(
        Geometry(
            dim=32,
            heads=4,
            encoder_layers=2,
            decoder_layers=2,
            queries=32,
            patch_side=2,
            folding_hidden=32,
            stages=(Stage(32, points=32),),
            neighbours=4,
            published_paths=False,
        ),
        self_attention_memory=1,
        amounts=Amounts(seen=64, training_truth=128, truth=512, evaluated=77),
        threshold=0.05,
        evaluation_batch=77,
    ),
    Scale.SMALL: Setting(
        Geometry(
            dim=64,
            heads=4,
            encoder_layers=2,
            decoder_layers=2,
            queries=64,
            patch_side=2,
            folding_hidden=64,
            stages=(Stage(64, points=64),),
            neighbours=4,
            published_paths=False,
        ),
        self_attention_memory=1,
        amounts=Amounts(seen=128, training_truth=256, truth=1024, evaluated=232),
        threshold=0.05,
        evaluation_batch=58,
    ),
    Scale.BASE: Setting(
        Geometry(
            dim=192,
            heads=6,
            encoder_layers=4,
            decoder_layers=4,
            queries=128,
            patch_side=3,
            folding_hidden=128,
            stages=(Stage(64, points=256), Stage(128, points=128)),
            neighbours=8,
            published_paths=False,
        ),
        self_attention_memory=1,
        amounts=Amounts(seen=512, training_truth=1024, truth=1024, evaluated=464),
        threshold=0.02,
        evaluation_batch=58,
    ),
    Scale.PAPER: Setting(
        PUBLISHED,
        self_attention_memory=0,
        amounts=Amounts(
            seen=2048,
            training_truth=COMPLETE_POINTS,
            truth=COMPLETE_POINTS,
            evaluated=_ALL_MODELS,
        ),
        threshold=0.01,
        evaluation_batch=8,
    ),
}

EMBEDDED_PAPER_AMOUNTS = Amounts(seen=512, training_truth=1024, truth=1024, evaluated=464)
"""At scale paper: an embedded shape has 2,048 points, and no point is in input and truth"""

_RECIPES = {
    Scale.TINY: Recipe(steps=100, batch_size=16, learning_rate=4e-3, evaluations=2),
    Scale.SMALL: Recipe(steps=400, batch_size=16, learning_rate=2e-3, evaluations=4),
    Scale.BASE: Recipe(steps=4000, batch_size=32, learning_rate=1e-3, evaluations=10),
}


def published_recipe(training_shapes: int) -> Recipe:
    """PoinTr's for PCN: AdamW at 5e-4, 48 shapes a batch, 300 epochs.

    PoinTr's rate falls by a tenth every 21 epochs; the straight line here ends where that ends. An
    epoch is one in number only: a batch is drawn at random instead of from a shuffled list.
    """
    batch, epochs = 48, 300
    return Recipe(
        steps=epochs * max(1, training_shapes // batch),
        batch_size=batch,
        learning_rate=5e-4,
        warmup_steps=0,
        betas=(0.9, 0.999),
        weight_decay=5e-4,
        gradient_clip=10.0,
        schedule="linear",
        final_lr_fraction=0.9 ** (epochs / 21),
        evaluations=60,
    )


@register_task(
    TaskInfo(
        id="point-completion",
        title="Point cloud completion",
        description="The whole surface of a thing from points of the half that faces a random "
        "direction. The embedded data is furniture, persons, plants, vehicles and household "
        "things, turned at random; shapes are split, and versions of a shape stay together. "
        "PoinTr turns points into proxies, encodes them, and decodes queries that become patches "
        "of the surface. The control none is a decoder that sees nothing of the input (cross), or "
        "an encoder and a decoder whose tokens do not see each other (self).",
        backbones={Pattern.NONCAUSAL_CROSS: "pointr", Pattern.NONCAUSAL_SELF: "pointr"},
        metrics=(
            Metric(
                "cd_l1",
                "0.001 side",
                higher_is_better=False,
                help="Chamfer distance with unsquared distances, the mean of both directions, "
                "times 1000; the longest side of an embedded shape is 1.",
            ),
            Metric(
                "cd_l2",
                "0.001 side^2",
                higher_is_better=False,
                help="Chamfer distance with squared distances, the sum of both directions, times "
                "1000.",
            ),
            Metric(
                "f_score",
                "",
                higher_is_better=True,
                help="Harmonic mean of the shares of predicted and of true points that have a "
                "point of the other cloud within 0.01 as published at scale paper, 0.02 at base, "
                "0.05 at small and tiny, whose clouds are sparse.",
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE, Scale.PAPER),
        dataset="sweethome3d-furniture",
        data_dir="PCN as released for GRNet and PoinTr: PCN.json (a list of categories with "
        "taxonomy_id, train, val, test), {train,val,test}/complete/<taxonomy>/<model>.pcd with "
        "16,384 points each, train/partial/<taxonomy>/<model>/00.pcd to 07.pcd, and "
        "{val,test}/partial/<taxonomy>/<model>/00.pcd. Files of ascii and binary points are read, "
        "binary_compressed ones are not",
        differences="at scales below paper, PoinTr without its paths around attention: no nearest "
        "tokens beside the first layers, queries that are learned instead of made from the pooled "
        "input, no pooled queries in the folding head, and a completion without the points that "
        "were seen. Where self attention is measured there, the decoder reads one proxy only, "
        "which has to gather the shape. At scale paper the model is the published one, with "
        "biases in the query, key and value projections; the rate falls along a straight line "
        "instead of an exponential, biases decay like weights, the checkpoint is chosen on val "
        "(PoinTr's code takes test), and views with fewer than 2,048 points are filled up by "
        "repetition, not zeros",
        paper="Yu et al., PoinTr: Diverse Point Cloud Completion with Geometry-Aware Transformers",
        url="https://arxiv.org/abs/2108.08839",
    )
)
class PointCompletion(Task):
    """Half seen shapes, or PCN's views, completed by PoinTr."""

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        self.setting = SETTINGS[scale]
        self.amounts = self.setting.amounts
        self.pairs: Pairs
        if data_dir is not None:
            self.pairs = PcnPairs(data_dir, self.amounts)
            return
        if scale is Scale.PAPER:
            self.amounts = EMBEDDED_PAPER_AMOUNTS
        self.pairs = EmbeddedPairs(self.info.dataset, self.amounts)

    @classmethod
    def data_problems(cls, data_dir: Path) -> list[str]:
        """See `cab.Task.data_problems`."""
        return list(folder_problems(data_dir))

    @property
    def data_hash(self) -> str:
        """See `tasks.point_completion.pairs.Pairs`."""
        return self.pairs.data_hash

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        if self.scale is Scale.PAPER:
            return published_recipe(self.pairs.training_shapes)
        return _RECIPES[self.scale]

    @property
    def geometry(self) -> Geometry:
        """Of the backbone for this pattern."""
        geometry = self.setting.geometry
        if self.pattern is Pattern.NONCAUSAL_SELF:
            return replace(geometry, memory=self.setting.self_attention_memory)
        return geometry

    def length(self) -> tuple[int, int]:
        """The queries and the proxies; self attention has them by turns."""
        size = self.geometry
        if self.pattern is Pattern.NONCAUSAL_SELF:
            longest = max(size.queries, size.proxies)
            return longest, longest
        return size.queries, size.memory or size.proxies

    def build(self, slots: Slots) -> nn.Module:
        """PoinTr."""
        return PoinTr(slots, self.geometry)

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Distinct shapes, one fresh view of each."""
        return self.pairs.training_batch(self.recipe.batch_size, generator)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """CD-l1 of the coarse cloud and of the fine one."""
        coarse, fine = model(batch["partial"])
        truth = batch["complete"]
        return (chamfer_l1(coarse, truth) + chamfer_l1(fine, truth)).mean()

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """Means over fixed views of the split's shapes."""
        device = device_of(model)
        scores: dict[str, list[Tensor]] = {metric.name: [] for metric in self.info.metrics}
        pairs, size = self.amounts.evaluated, self.setting.evaluation_batch
        for batch in self.pairs.evaluation_batches(split, pairs, size):
            _, fine = model(batch["partial"].to(device))
            found = completion_scores(fine, batch["complete"].to(device), self.setting.threshold)
            for name, values in found.items():
                scores[name].append(values)
        return {name: torch.cat(values).double().mean().item() for name, values in scores.items()}

    def reduced(self) -> Self:
        """See `cab.Task.reduced`; distances between clouds take their time."""
        part = copy.copy(self)
        part.amounts = replace(self.amounts, evaluated=-(-self.amounts.evaluated // _PART))
        return part

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """Input, completion and truth of four test shapes, side by side."""
        device = device_of(model)
        batch = next(iter(self.pairs.evaluation_batches("test", _SHOWN, _SHOWN)))
        _, fine = model(batch["partial"].to(device))
        rows = [
            [
                draw_cloud(cloud.cpu().numpy(), colour, _TILE)
                for cloud, colour in zip(
                    clouds, (_SEEN_COLOUR, _COMPLETED_COLOUR, _TRUE_COLOUR), strict=True
                )
            ]
            for clouds in zip(batch["partial"], fine, batch["complete"], strict=True)
        ]
        caption = "Test shapes: the points that were seen, the completion, the truth."
        return [pictures.image("completions", caption, pictures.grid(rows))]
