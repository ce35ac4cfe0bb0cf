"""Super-resolution: resampling, scores, data, both backbones, diffusion."""

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
from attentions.softmax_exact import ExactSoftmaxAttention
from cab import Attention, AttentionContext, Batch, Pattern, Scale, Slots, Task
from runners.training import train
from tasks.data.images import photographs
from tasks.super_resolution.diffusion import Bounds, Diffusion
from tasks.super_resolution.fidelity import psnr, ssim
from tasks.super_resolution.image_task import ImageTask
from tasks.super_resolution.patch_transformer import PatchTransformer
from tasks.super_resolution.resampling import enlarged, resized, to_pictures, to_signal
from tasks.super_resolution.sr3_task import SETTINGS as SR3_SETTINGS
from tasks.super_resolution.sr3_task import SuperResolutionSR3
from tasks.super_resolution.task import SETTINGS, SuperResolution
from tasks.super_resolution.unet import UNet, UNetSizes

NS = Pattern.NONCAUSAL_SELF
CLASSES = [SuperResolution, SuperResolutionSR3]
CANDIDATES = [SoftmaxAttention, ExactSoftmaxAttention, NoAttention]


@pytest.fixture(scope="module", params=CLASSES, ids=lambda cls: cls.info.id)
def task(request: pytest.FixtureRequest) -> ImageTask:
    return request.param(NS, Scale.TINY)


def build(task: Task, candidate: type[Attention], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return task.build(Slots(NS, candidate, SoftmaxAttention, seed=seed))


def draw(task: Task, seed: int) -> Batch:
    return task.training_batch(torch.Generator().manual_seed(seed))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def noise_pictures(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


# Resampling


@pytest.mark.parametrize("side", [8, 32, 128])
def test_resampling_is_pillows_bicubic(side: int) -> None:
    """On float channels, which Pillow does not round between its two passes."""
    crops = photographs("validation")[::9]
    channels = [Image.fromarray(x.numpy()) for x in crops.flatten(0, 1).float()]
    by_pillow = np.stack([np.asarray(x.resize((side, side), 3)) for x in channels])
    expected = torch.from_numpy(by_pillow).unflatten(0, (-1, 3)).clamp(0, 255)
    assert (resized(crops, side).float() - expected).abs().max() < 0.501


def test_enlarging_keeps_what_has_no_detail() -> None:
    flat = torch.full((1, 3, 32, 32), 77, dtype=torch.uint8)
    assert torch.equal(enlarged(flat, 8), flat)
    stripes = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    stripes[..., ::2] = 255
    left = enlarged(stripes, 8).int()
    assert left.max() - left.min() < 0.1 * 255


def test_signals_round_and_cut() -> None:
    pictures = noise_pictures(2, 3, 8, 8)
    assert torch.equal(to_pictures(to_signal(pictures)), pictures)
    assert to_pictures(torch.tensor([-7.0, -1.0, 0.0, 1.0, 9.0])).tolist() == [0, 0, 128, 255, 255]


# PSNR and SSIM


def test_psnr_of_known_errors() -> None:
    """An error of d everywhere: 20 log10(255 / d); of one channel alone: a third of its square."""
    truth = torch.full((3, 3, 16, 16), 100, dtype=torch.uint8)
    output = truth.clone()
    output[0] += 5
    output[1, 2] += 5
    values = psnr(output, truth)
    assert values[0].item() == pytest.approx(20 * math.log10(255 / 5))
    assert values[1].item() == pytest.approx(20 * math.log10(255 / 5) + 10 * math.log10(3))
    assert values[2].item() == math.inf


def windowed(values: np.ndarray) -> np.ndarray:
    """Means under a Gaussian window of 11 x 11, sigma 1.5, wherever it fits."""
    offsets = np.arange(11) - 5
    line = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    views = np.lib.stride_tricks.sliding_window_view(values, (11, 11))
    return np.einsum("ijkl,kl->ij", views, window)


def test_ssim_is_its_definition() -> None:
    """Wang et al. 2004, equation 13, a channel at a time."""
    truth, noise = noise_pictures(2, 3, 20, 24), noise_pictures(2, 3, 20, 24, seed=1)
    output = (0.7 * truth + 0.3 * noise).to(torch.uint8)
    for one, other, value in zip(output, truth, ssim(output, truth), strict=True):
        channels = []
        for x, y in zip(one.double().numpy(), other.double().numpy(), strict=True):
            mean_x, mean_y = windowed(x), windowed(y)
            var_x, var_y = windowed(x * x) - mean_x**2, windowed(y * y) - mean_y**2
            both = windowed(x * y) - mean_x * mean_y
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            likeness = (2 * mean_x * mean_y + c1) * (2 * both + c2)
            channels.append(likeness / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)))
        assert value.item() == pytest.approx(np.mean(channels), abs=1e-9)
    assert ssim(truth, truth).tolist() == pytest.approx([1, 1])


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


# Diffusion


def oracle(clean: Tensor) -> object:
    """The noise that takes ``clean`` to the noisy picture."""

    def predict(noisy: Tensor, level: Tensor) -> Tensor:
        level = level[:, None, None, None]
        return (noisy - level * clean) / (1 - level.square()).sqrt()

    return predict


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("steps", [1, 7, 50])
def test_sampling_with_the_true_noise_gives_the_picture(steps: int, stochastic: bool) -> None:
    diffusion = Diffusion(times=50, last=0.2)
    clean = torch.rand(2, 3, 4, 4) * 2 - 1
    bounds = Bounds(-torch.ones_like(clean), torch.ones_like(clean))
    generator = torch.Generator().manual_seed(0)
    sampled = diffusion.sample(
        oracle(clean),  # type: ignore[arg-type]
        bounds,
        generator,
        steps=steps,
        stochastic=stochastic,
    )
    assert torch.allclose(sampled, clean, atol=1e-4)


def test_stochastic_sampling_is_the_ancestral_one() -> None:
    """Mean and spread of a step are those of the posterior (Ho et al. 2020, equation 7)."""
    diffusion = Diffusion(times=10, last=0.3)
    clean = torch.full((20_000, 1, 1, 1), 0.5)
    bounds = Bounds(-torch.ones_like(clean), torch.ones_like(clean))
    seen: list[tuple[Tensor, float]] = []
    inner = oracle(clean)

    def predict(noisy: Tensor, level: Tensor) -> Tensor:
        seen.append((noisy, level[0].item()))
        return inner(noisy, level)  # type: ignore[operator]

    generator = torch.Generator().manual_seed(0)
    diffusion.sample(predict, bounds, generator, steps=10, stochastic=True)
    betas = np.linspace(1e-6, 0.3, 10)
    gammas = np.concatenate([[1], np.cumprod(1 - betas)])
    (now, level), (after, _) = seen[2], seen[3]
    t = 8
    assert level == pytest.approx(math.sqrt(gammas[t]))
    beta, gamma, before = betas[t - 1], gammas[t], gammas[t - 1]
    mean = (
        math.sqrt(before) * beta / (1 - gamma) * clean
        + math.sqrt(1 - beta) * (1 - before) / (1 - gamma) * now
    )
    error = after - mean
    assert error.mean().item() == pytest.approx(0, abs=0.01)
    spread = math.sqrt((1 - before) / (1 - gamma) * beta)
    assert error.std().item() == pytest.approx(spread, rel=0.03)


def test_levels_lie_within_the_schedule() -> None:
    diffusion = Diffusion()
    levels = diffusion.draw_levels(4096, torch.Generator().manual_seed(0))
    assert levels.max() <= 1
    assert levels.min() >= diffusion.levels[-1]
    # Times are uniform: half of the levels are above that of the middle.
    assert (levels > diffusion.levels[1000]).double().mean().item() == pytest.approx(0.5, abs=0.03)
    noisy = Diffusion.mixed(torch.ones(2, 3, 1, 1), torch.ones(2, 3, 1, 1), torch.tensor([1, 0.6]))
    assert noisy[:, 0, 0, 0].tolist() == pytest.approx([1.0, 0.6 + 0.8])


def test_samples_follow_the_seed() -> None:
    task = SuperResolutionSR3(NS, Scale.TINY)
    model = build(task, SoftmaxAttention).eval()
    with torch.no_grad():
        first, again, other = (task.evaluate(model, "test", seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


@pytest.mark.parametrize("velocity", [False, True])
@pytest.mark.parametrize("residual_scale", [0.0, 0.2])
def test_what_is_diffused_is_undone(residual_scale: float, velocity: bool) -> None:
    """With the true noise or velocity the picture comes back, whole or as a residual."""
    task = SuperResolutionSR3(NS, Scale.TINY)
    task.setting = replace(task.setting, residual_scale=residual_scale, velocity=velocity)
    batch = draw(task, 0)
    clean = batch["wanted"]
    if residual_scale:
        clean = (clean - batch["given"]) / residual_scale

    class Knowing(nn.Module):
        def forward(self, given: Tensor, noisy: Tensor, level: Tensor) -> Tensor:
            level = level[:, None, None, None]
            spread = (1 - level.square()).sqrt()
            noise = (noisy - level * clean) / spread
            return level * noise - spread * clean if velocity else noise

    restored = task.restore(Knowing(), batch["given"], torch.Generator())
    assert torch.allclose(restored, batch["wanted"], atol=1e-3)
    assert task.loss(Knowing(), batch).item() < 2e-3


# Published geometry


def published(attended: tuple[int, ...]) -> UNetSizes:
    return replace(SR3_SETTINGS[Scale.PAPER].network, attended=attended)


def test_sr3_has_the_published_number_of_parameters() -> None:
    """97,807,491: what its usual implementation reports for 16 to 128 pixels, attention at 16."""
    with torch.device("meta"):
        slots = Slots(NS, SoftmaxAttention, SoftmaxAttention)
        original = UNet(slots, published((16,)))
        model = UNet(slots, published((16, 32, 64, 128)))
    assert count(original) == 97_807_491
    # A slot of width c: norm, three projections without and one with bias. Five more per level.
    added = sum(5 * (2 * c + 3 * c * c + c * c + c) for c in (64, 128, 256))
    assert count(model) == 97_807_491 + added
    assert SR3_SETTINGS[Scale.PAPER].network == published((16, 32, 64, 128))


def test_patch_transformer_at_scale_paper() -> None:
    """DeiT-S's 21.3 million parameters in the layers, and 16,384 tokens of three numbers."""
    setting, width = SETTINGS[Scale.PAPER], 384
    with torch.device("meta"):
        model = PatchTransformer(
            Slots(NS, SoftmaxAttention, SoftmaxAttention),
            side=128,
            patch=setting.patch,
            dim=setting.dim,
            heads=setting.heads,
            layers=setting.layers,
            expansion=setting.expansion,
        )
    attention = 4 * (width * width + width)
    feed_forward = 2 * 4 * width * width + 4 * width + width
    layers = 12 * (attention + feed_forward + 4 * width)
    ends = (3 * width + width) + 16_384 * width + 2 * width + (3 * width + 3)
    assert layers == 21_293_568
    assert count(model) == layers + ends


@pytest.mark.parametrize("cls", CLASSES)
def test_paper_scale_has_cabs_lengths_and_recipe(cls: type[ImageTask]) -> None:
    task = cls(NS, Scale.PAPER)
    assert task.length() == (16_384, 16_384)
    assert (task.sizes.low, task.sizes.high) == (16, 128)
    assert len(task.pictures["test"]) == 100
    recipe = task.recipe
    assert (recipe.steps, recipe.batch_size, recipe.learning_rate) == (1_000_000, 4, 1e-4)
    batch = draw(task, 0)
    assert batch["given"].shape == (4, 3, 128, 128)


@pytest.mark.parametrize("cls", CLASSES)
def test_base_scale_takes_a_step(cls: type[ImageTask]) -> None:
    task = cls(NS, Scale.BASE)
    batch = {name: tensor[:1] for name, tensor in draw(task, 0).items()}
    model = build(task, SoftmaxAttention).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    before = task.loss(model, batch)
    before.backward()
    optimizer.step()
    assert task.loss(model, batch).item() < before.item()
