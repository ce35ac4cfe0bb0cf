"""The task ``scanpath``: the next fixation of a searcher among objects.

Scenes and searcher are generated (`tasks.scanpath.scenes`), so the best possible score is known:
the searcher's own. Trained on scenes of any of three numbers of objects, evaluated on each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cab import (
    Artifact,
    Batch,
    GeneratedTask,
    Metric,
    Pattern,
    Recipe,
    Reference,
    Scale,
    Slots,
    TaskInfo,
    register_task,
    seeds,
)
from cab.task_contract import Split
from tasks.artifacts import pictures
from tasks.evaluation import beside, share
from tasks.scanpath.drawing import draw_scanpath
from tasks.scanpath.model import FixationDecoder
from tasks.scanpath.scenes import (
    COLOURS,
    NOTHING,
    POLICY,
    SHAPES,
    SIZES,
    Scenes,
    choices,
    draw_scanpaths,
    draw_scenes,
    policy_log_probabilities,
)
from tasks.scanpath.similarity import sequence_similarity


@dataclass(frozen=True)
class Setting:
    """Sizes of one scale."""

    objects: tuple[int, int, int]
    """Numbers of objects of a scene, rising"""
    length: int
    """T, most fixations"""
    dim: int
    heads: int
    layers: int
    scenes: dict[Split, int]
    """Scenes evaluated, at each number of objects"""


SETTINGS = {
    Scale.TINY: Setting((4, 8, 12), 8, 32, 4, layers=1, scenes={"validation": 64, "test": 128}),
    Scale.SMALL: Setting((8, 16, 24), 16, 64, 4, layers=2, scenes={"validation": 128, "test": 512}),
    Scale.BASE: Setting(
        (16, 32, 64), 32, 256, 8, layers=4, scenes={"validation": 256, "test": 1024}
    ),
}

RECIPES = {
    Scale.TINY: Recipe(steps=100, batch_size=32, learning_rate=4e-3),
    Scale.SMALL: Recipe(steps=1000, batch_size=32, learning_rate=4e-3),
    Scale.BASE: Recipe(
        steps=10_000, batch_size=256, learning_rate=5e-4, evaluations=5, precision="bfloat16"
    ),
}

LEVELS = ("few", "some", "many")


@register_task(
    TaskInfo(
        id="scanpath",
        title="Scanpath",
        description="Which of 8 to 24 objects a searcher looks at next, or whether it stops, from "
        "the target's description and the fixations so far; scenes and searcher are synthetic.",
        backbones={Pattern.CAUSAL_CROSS: "fixation-decoder"},
        metrics=(
            Metric(
                "nll",
                "nat/fixation",
                higher_is_better=False,
                help="Negative log-likelihood of the next fixation or of the stop, mean over the "
                "three numbers of objects.",
            ),
            *(
                Metric(
                    f"nll_{level}",
                    "nat/fixation",
                    higher_is_better=False,
                    help=f"In scenes of {count} objects at scale small.",
                    headline=False,
                )
                for level, count in (("few", 8), ("some", 16), ("many", 24))
            ),
            Metric(
                "accuracy",
                "1",
                higher_is_better=True,
                help="Share of steps in which the likeliest choice is the one taken.",
                headline=False,
            ),
            Metric(
                "similarity",
                "1",
                higher_is_better=True,
                help="1 - normalised edit distance of a path drawn from the model to the "
                "searcher's, with the most objects.",
                headline=False,
            ),
        ),
        references=(
            Reference("searcher", "nll", "The searcher's own probabilities: the best possible."),
            Reference("searcher-entropy", "nll", "Their entropy: the expectation of the above."),
            Reference("uniform", "nll", "All objects and the stop alike."),
            *(
                Reference(f"searcher-{level}", f"nll_{level}", "The searcher's own probabilities.")
                for level in ("few", "some", "many")
            ),
            Reference("searcher-accuracy", "accuracy", "Of the searcher's likeliest choice."),
            Reference(
                "searcher-similarity", "similarity", "Of a second path of the searcher itself."
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="generated",
        paper="Fang et al., OAT: Object-Level Attention Transformer for Gaze Scanpath Prediction",
        url="https://arxiv.org/abs/2407.13335",
        probe=True,
        fresh_evaluation=True,
    )
)
class Scanpath(GeneratedTask):
    """Search among generated objects."""

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        self.setting = SETTINGS[scale]

    @property
    def problem_settings(self) -> object:
        """See `cab.GeneratedTask.problem_settings`."""
        setting = self.setting
        kinds = COLOURS, SHAPES, SIZES
        return kinds, POLICY, setting.objects, setting.length, setting.scenes

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return RECIPES[self.scale]

    def length(self) -> tuple[int, int]:
        """Steps and objects."""
        return self.setting.length, self.setting.objects[-1]

    def build(self, slots: Slots) -> nn.Module:
        """See `cab.Task.build`."""
        setting = self.setting
        return FixationDecoder(
            slots,
            objects=setting.objects[-1],
            length=setting.length,
            dim=setting.dim,
            heads=setting.heads,
            layers=setting.layers,
            expansion=4,
        )

    def draw(self, counts: Tensor, generator: torch.Generator) -> tuple[Scenes, Tensor]:
        """Scenes of (B,) numbers of objects, and a path (B, T) through each."""
        scenes = draw_scenes(counts, self.setting.objects[-1], generator)
        return scenes, draw_scanpaths(scenes, self.setting.length, generator)

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Fresh scenes; none is ever seen twice."""
        numbers = torch.tensor(self.setting.objects)
        drawn = torch.randint(len(numbers), (self.recipe.batch_size,), generator=generator)
        return scanpath_batch(*self.draw(numbers[drawn], generator))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean negative log-likelihood of the steps taken."""
        chosen, taken = choices(batch["paths"], batch["present"].shape[1])
        return F.cross_entropy(model(batch)[taken].float(), chosen[taken])

    def causal_inputs(self) -> tuple[str, ...]:
        """See `cab.Task.causal_inputs`."""
        return ("paths",)

    def causal_outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """(B, T, N + 1) logits of every step."""
        return model(batch)

    def questions(self, split: Split, seed: int) -> dict[str, tuple[Scenes, Tensor]]:
        """Scenes and paths that (split, seed) is evaluated on, by number of objects."""
        count = self.setting.scenes[split]
        return {
            level: self.draw(
                torch.full((count,), objects), seeds.evaluation(seed, split, "scenes", level)
            )
            for level, objects in zip(LEVELS, self.setting.objects, strict=True)
        }

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """Likelihood and accuracy on `questions`; similarity of one drawn path a scene."""

        def predict(scenes: Scenes, paths: Tensor) -> Tensor:
            logits = model(beside(model, scanpath_batch(scenes, paths)))
            return logits.double().log_softmax(-1).cpu()

        asked = self.questions(split, seed)
        scenes, paths = asked[LEVELS[-1]]
        drawn = self.imagine(model, scenes, seeds.evaluation(seed, split, "imagined"))
        return {
            **likelihoods(predict, asked),
            "similarity": sequence_similarity(drawn, paths).mean().item(),
        }

    def imagine(self, model: nn.Module, scenes: Scenes, generator: torch.Generator) -> Tensor:
        """(B, T) paths drawn from the model step by step."""
        batch, most = scenes.present.shape
        paths = torch.full((batch, self.setting.length), NOTHING)
        going = torch.ones(batch, dtype=torch.bool)
        for step in range(self.setting.length):
            inputs = scanpath_batch(scenes, paths[:, : step + 1])
            logits = model(beside(model, inputs))[:, -1]
            likely = logits.double().softmax(-1).cpu()
            drawn = torch.multinomial(likely, 1, generator=generator)[:, 0]
            going &= drawn < most
            paths[going, step] = drawn[going]
        return paths

    def references(self, seed: int) -> dict[str, float]:
        """The searcher's own scores on the same scenes and paths."""
        asked = self.questions("test", seed)
        own = likelihoods(policy_log_probabilities, asked)
        entropies, guesses = [], []
        for (scenes, paths), objects in zip(asked.values(), self.setting.objects, strict=True):
            _, taken = choices(paths, scenes.present.shape[1])
            log = policy_log_probabilities(scenes, paths)
            entropies.append(-(log.exp() * log.clamp(min=-1e9)).sum(-1)[taken].mean().item())
            first = taken[:, 0].sum() / taken.sum()
            guesses.append(math.log(objects + 1) + first.item() * math.log(objects / (objects + 1)))
        scenes, paths = asked[LEVELS[-1]]
        second = seeds.evaluation(seed, "test", "second path")
        again = draw_scanpaths(scenes, self.setting.length, second)
        return {
            "searcher": own["nll"],
            "searcher-entropy": sum(entropies) / len(entropies),
            "uniform": sum(guesses) / len(guesses),
            **{f"searcher-{level}": own[f"nll_{level}"] for level in LEVELS},
            "searcher-accuracy": own["accuracy"],
            "searcher-similarity": sequence_similarity(again, paths).mean().item(),
        }

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """Two scenes, each with the searcher's path and one drawn from the model."""
        scenes, paths = self.questions("test", seed)[LEVELS[-1]]
        drawn = self.imagine(model, scenes, seeds.evaluation(seed, "test", "imagined"))
        tiles = [
            [draw_scanpath(scenes, row, path[row]) for path in (paths, drawn)] for row in (0, 1)
        ]
        return [
            pictures.image(
                "scanpaths",
                "Two test scenes, the target in a ring: the searcher's fixations (left) and ones "
                "drawn from the model (right), numbered, from the centre.",
                pictures.grid(tiles),
            )
        ]


def scanpath_batch(scenes: Scenes, paths: Tensor) -> Batch:
    """What a model is given.

    Returns:
        ``features`` (B, N, F) of the objects, ``present`` (B, N) bool, ``sought`` (B, 8) colour and
        shape of the target, ``paths`` (B, T) int64 with `NOTHING` after the last fixation.
    """
    centred = scenes.places - 0.5
    radius = centred.square().sum(-1, keepdim=True)
    kind = [F.one_hot(scenes.colours, COLOURS), F.one_hot(scenes.shapes, SHAPES)]
    size = scenes.sizes[..., None] - 1
    sought = torch.cat(
        [
            F.one_hot(scenes.of_target(scenes.colours)[:, 0], COLOURS),
            F.one_hot(scenes.of_target(scenes.shapes)[:, 0], SHAPES),
        ],
        dim=-1,
    )
    # Unit variance: uniform coordinates have 1/12, their squared radius 1/90.
    features = torch.cat([centred * 12**0.5, (radius - 1 / 6) * 90**0.5, *kind, size], dim=-1)
    return {
        "features": features.float(),
        "present": scenes.present,
        "sought": sought.float(),
        "paths": paths,
    }


def likelihoods(
    predict: Callable[[Scenes, Tensor], Tensor], questions: dict[str, tuple[Scenes, Tensor]]
) -> dict[str, float]:
    """``nll``, that of each number of objects and ``accuracy``, of a predictor (scenes, paths) ->
    (B, T, N + 1) log-probabilities.
    """
    losses, hits = {}, []
    for level, (scenes, paths) in questions.items():
        chosen, taken = choices(paths, scenes.present.shape[1])
        log = predict(scenes, paths)[taken]
        losses[f"nll_{level}"] = F.nll_loss(log, chosen[taken]).item()
        hits.append(share(log.argmax(-1) == chosen[taken]))
    return {
        "nll": sum(losses.values()) / len(losses),
        **losses,
        "accuracy": sum(hits) / len(hits),
    }
