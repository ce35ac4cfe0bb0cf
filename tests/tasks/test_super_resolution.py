"""The tasks of super-resolution: data, backbones, training, pictures."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from cab import AttentionContext, Scale, Slots
from runners.training import train
from tasks.data.images import photographs
from tasks.super_resolution.fidelity import psnr, ssim
from tasks.super_resolution.image_task import ImageTask
from tasks.super_resolution.resampling import enlarged, resized, to_pictures, to_signal
from tasks.super_resolution.task import SuperResolution
from tests.tasks.super_resolution_cases import (
    CANDIDATES,
    CLASSES,
    NS,
    build,
    draw,
    noise_pictures,
)


@pytest.fixture(scope="module", params=CLASSES, ids=lambda cls: cls.info.id)
def task(request: pytest.FixtureRequest) -> ImageTask:
    return request.param(NS, Scale.TINY)


# Data


def test_splits_share_no_photograph(task: ImageTask) -> None:
    """The embedded splits are by photograph; what a task holds are resized crops of its split."""
    side = task.sizes.high
    for split in ("train", "validation", "test"):
        own = {bytes(x.numpy().tobytes()) for x in resized(photographs(split), side)}
        held = task.pictures[split][torch.arange(len(task.pictures[split]))]
        assert {bytes(x.numpy().tobytes()) for x in held} <= own
        assert held.shape == (task.sizes.counts[split], 3, side, side)


@pytest.mark.parametrize("cls", CLASSES)
def test_small_uses_all_photographs(cls: type[ImageTask]) -> None:
    pictures = cls(NS, Scale.SMALL).pictures
    assert len(pictures["train"]) == 699
    assert len(pictures["test"]) >= 96


def test_batches_are_turned_pictures_of_the_training_split(task: ImageTask) -> None:
    batch = draw(task, 0)
    side = task.sizes.high
    assert batch["wanted"].shape == (task.recipe.batch_size, 3, side, side)
    wanted = to_pictures(batch["wanted"])
    assert torch.equal(batch["given"], to_signal(enlarged(wanted, task.sizes.low)))
    train = task.pictures["train"][torch.arange(len(task.pictures["train"]))]
    turned = [train.rot90(k, (-2, -1)) for k in range(4)]
    known = {x.numpy().tobytes() for t in turned for both in (t, t.flip(-1)) for x in both}
    assert all(x.numpy().tobytes() in known for x in wanted)
    upright = {x.numpy().tobytes() for x in train}
    assert not all(x.numpy().tobytes() in upright for x in wanted)


def test_batches_repeat_with_the_seed(task: ImageTask) -> None:
    first, again, other = draw(task, 3), draw(task, 3), draw(task, 4)
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


# Backbones and training


def test_backbone_is_the_same_for_every_candidate(task: ImageTask) -> None:
    models = [build(task, candidate, seed=3) for candidate in CANDIDATES]
    first = models[0].state_dict()
    for model in models[1:]:
        state = model.state_dict()
        assert state.keys() == first.keys()
        assert all(torch.equal(state[name], first[name]) for name in first)


def test_slots_get_the_candidate_the_grid_and_the_inputs(task: ImageTask) -> None:
    seen: list[tuple[int, ...]] = []

    class Watching(SoftmaxAttention):
        def forward(
            self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
        ) -> Tensor:
            assert context is not None
            assert context.query_grid is not None
            assert context.query_input is not None
            assert math.prod(context.query_grid) == q.shape[2] <= self.spec.max_length
            assert context.query_input.shape[1:] == (q.shape[2], self.spec.embed_dim)
            seen.append(context.query_grid)
            return super().forward(q, k, v, context)

    slots = Slots(NS, Watching, SoftmaxAttention)
    model = task.build(slots)
    task.loss(model, draw(task, 0))
    assert len(seen) == len(slots.candidates) == slots.candidates[0].spec.layers
    assert [m.spec.layer_index for m in slots.candidates] == list(range(len(seen)))
    assert max(math.prod(grid) for grid in seen) == task.length()[0]


def run(task: ImageTask, seed: int, steps: int = 3) -> tuple[dict[str, float], nn.Module]:
    """Scores on the validation split, and the model."""
    recipe = replace(task.recipe, steps=steps, batch_size=2, evaluations=1)

    class Short(type(task)):  # type: ignore[misc]
        @property
        def recipe(self):  # type: ignore[no-untyped-def]
            return recipe

    short = Short(NS, Scale.TINY)
    model = build(short, SoftmaxAttention, seed)
    return train(short, model, [], seed, lambda **_: None).validation, model


def test_training_repeats_to_the_last_bit(task: ImageTask) -> None:
    first, model = run(task, 5)
    again, twin = run(task, 5)
    other, _ = run(task, 6)
    assert first == again
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True)
    )
    assert first != other
    assert list(first) == [metric.name for metric in task.info.metrics]


def test_one_step_lowers_the_loss(task: ImageTask) -> None:
    model = build(task, SoftmaxAttention).eval()
    batch = draw(task, 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    before = task.loss(model, batch)
    before.backward()
    optimizer.step()
    assert task.loss(model, batch).item() < before.item()


class Bicubic(nn.Module):
    """Gives back what it is given; also the noise of a residual that is zero."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, given: Tensor) -> Tensor:
        return given


def test_gain_is_over_the_enlarged_picture() -> None:
    task = SuperResolution(NS, Scale.TINY)
    scores = task.evaluate(Bicubic(), "test", 0)
    truth = task.pictures["test"][torch.arange(32)]
    given = enlarged(truth, task.sizes.low)
    assert scores["psnr_gain"] == 0
    assert scores["psnr"] == pytest.approx(psnr(given, truth).mean().item())
    assert scores["ssim"] == pytest.approx(ssim(given, truth).mean().item())


def test_the_patch_transformer_starts_as_the_enlarged_picture() -> None:
    task = SuperResolution(NS, Scale.TINY)
    model = build(task, SoftmaxAttention)
    nn.init.zeros_(model.get_submodule("readout").get_parameter("bias"))
    with torch.no_grad():
        assert task.evaluate(model, "test", 0)["psnr_gain"] == 0


def test_patches_meet_in_attention_only() -> None:
    """One changed patch changes the others with attention, and itself alone without."""
    task = SuperResolution(NS, Scale.TINY)
    given = torch.rand(1, 3, 32, 32) * 2 - 1
    changed = given.clone()
    changed[..., 4:8, 8:12] *= -1
    for candidate, everywhere in ((SoftmaxAttention, True), (NoAttention, False)):
        model = build(task, candidate)
        nn.init.normal_(model.get_submodule("readout").get_parameter("weight"))
        difference = (model(given) - model(changed)).abs()
        assert difference[..., 4:8, 8:12].min() > 0
        difference[..., 4:8, 8:12] = 0
        assert bool((difference > 0).any()) is everywhere


@pytest.mark.parametrize("side", [32, 64, 128])
def test_artifacts_fit_even_when_they_are_noise(side: int) -> None:
    task = SuperResolution(NS, Scale.TINY)
    task.sizes = replace(task.sizes, high=side)
    task.pictures = {"test": noise_pictures(7, 3, side, side)}

    class Noise(Bicubic):
        def forward(self, given: Tensor) -> Tensor:
            return torch.randn_like(given)

    artifacts = task.artifacts(Noise(), 0)
    assert {a.suffix for a in artifacts} == {"png"}
    widths = [Image.open(io.BytesIO(a.content)).width for a in artifacts]
    zoom = max(1, 96 // side)
    assert sum((width // zoom + 2) // (side + 2) for width in widths) == 6


def test_artifacts_show_input_output_and_truth(task: ImageTask) -> None:
    with torch.no_grad():
        (artifact,) = task.artifacts(build(task, SoftmaxAttention).eval(), 0)
    side = task.sizes.high
    zoom = 96 // side
    pixels = np.asarray(Image.open(io.BytesIO(artifact.content)))[::zoom, ::zoom]
    first, _, truth = (pixels[row * (side + 2) :][:side, :side] for row in range(3))
    count = task.sizes.counts["test"]
    expected = task.pictures["test"][torch.tensor([count // 12])]
    assert np.array_equal(truth, expected[0].permute(1, 2, 0))
    assert np.array_equal(first, enlarged(expected, task.sizes.low)[0].permute(1, 2, 0))
