"""Upsampling: positions, interpolation without parameters, what a query knows, one tiny cell."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from cab import Attention, Batch, Pattern, Scale, Slots
from cab.errors import UsageError
from runners.training import train
from tasks.super_resolution.resampling import resized
from tasks.upsampling.interpolation import bicubic, bilinear, inverse_distance
from tasks.upsampling.model import position_code
from tasks.upsampling.positions import ask, pixel_centres, pyramid
from tasks.upsampling.task import FACTORS, TRAINED, Upsampling, scores

NC = Pattern.NONCAUSAL_CROSS
INTERPOLATIONS = (inverse_distance, bilinear, bicubic)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    # At these sizes a second thread costs more than it gives, most of all on a busy machine.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny() -> Upsampling:
    return Upsampling(NC, Scale.TINY)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model_of(task: Upsampling, attention: type[Attention] = SoftmaxAttention) -> nn.Module:
    torch.manual_seed(0)
    return task.build(Slots(NC, attention, SoftmaxAttention)).eval()


def picture(values: Tensor, positions: Tensor) -> Batch:
    """A batch of one grey picture (S, S) and positions (M, 2)."""
    pixels = values.float().flatten()[None, :, None].expand(1, -1, 3)
    return {"pixels": pixels, "positions": positions[None].float()}


def test_centres_of_pixels() -> None:
    same = pixel_centres(2, 2)
    assert torch.equal(same, torch.tensor([[0.5, 0.5], [0.5, 1.5], [1.5, 0.5], [1.5, 1.5]]))
    finer = pixel_centres(5, 2)
    torch.testing.assert_close(finer[:5, 1], torch.tensor([0.2, 0.6, 1.0, 1.4, 1.8]))
    assert pixel_centres(30, 10).min() > 0
    assert pixel_centres(30, 10).max() < 10


def test_targets_are_pixels_of_the_larger_picture() -> None:
    crops = torch.randint(256, (6, 3, 64, 64), generator=generator(), dtype=torch.uint8)
    pictures = pyramid(crops, 4, (10,))
    assert torch.equal(pictures[10], resized(crops, 10))
    rows = torch.tensor([5, 0, 3])
    batch = ask(pictures, rows, 4, 10, 30, generator())
    index = (batch["positions"] * (10 / 4) - 0.5).round().long()
    for b, row in enumerate(rows.tolist()):
        large = pictures[10][row]
        expected = large[:, index[b, :, 0], index[b, :, 1]].T.float() / 255
        torch.testing.assert_close(batch["target"][b], expected)
        small = pictures[4][row].flatten(1).T.float() / 255
        torch.testing.assert_close(batch["pixels"][b], small)
    flat = 10 * index[..., 0] + index[..., 1]
    assert (flat[:, 1:] > flat[:, :-1]).all(), "no pixel twice, in the order of rows"
    assert batch["cell"].unique().tolist() == [pytest.approx(0.4)]


@pytest.mark.parametrize("interpolate", INTERPOLATIONS)
def test_interpolation_repeats_the_pixels_at_their_centres(interpolate) -> None:
    values = torch.rand(4, 4, generator=generator())
    out = interpolate(picture(values, pixel_centres(4, 4)))
    assert out.dtype == torch.float64
    torch.testing.assert_close(out[0, :, 0], values.flatten().double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("interpolate", INTERPOLATIONS)
def test_interpolation_keeps_a_constant(interpolate) -> None:
    out = interpolate(picture(torch.full((4, 4), 0.3), pixel_centres(11, 4)))
    torch.testing.assert_close(out, torch.full_like(out, 0.3), atol=1e-6, rtol=0)


def test_bilinear_of_a_plane_is_the_plane() -> None:
    def plane(at: Tensor) -> Tensor:
        return 0.1 + 0.15 * at[:, 0] + 0.05 * at[:, 1]

    inside = torch.tensor([[0.5, 1.2], [1.7, 2.9], [3.1, 0.6]])
    batch = picture(plane(pixel_centres(4, 4)).view(4, 4), inside)
    torch.testing.assert_close(bilinear(batch)[0, :, 0].float(), plane(inside))


def test_inverse_distance_by_hand() -> None:
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    point = torch.tensor([[0.5, 0.75]])
    distance = torch.tensor([0.25, 0.75, math.hypot(1, 0.25), math.hypot(1, 0.75)])
    weight = 1 / (distance + 1e-8)
    expected = (weight * values.flatten()).sum() / weight.sum()
    out = inverse_distance(picture(values, point))[0, 0, 0]
    assert out.item() == pytest.approx(expected.item())
    assert inverse_distance(picture(values, point), 1)[0, 0, 0].item() == pytest.approx(1.0)


def test_position_codes_are_most_alike_where_positions_are_near() -> None:
    fine, pixels = pixel_centres(23, 10), pixel_centres(10, 10)
    likeness = position_code(fine, 64, 10) @ position_code(pixels, 64, 10).T
    nearest = torch.cdist(fine, pixels).argmin(1)
    assert (likeness.argmax(1) == nearest).double().mean() > 0.95


def test_factors_in_tests_are_trained_between_and_beyond() -> None:
    assert FACTORS["x2"] in TRAINED
    assert FACTORS["x4"] == max(TRAINED)
    for name in ("x2_5", "x3"):
        assert FACTORS[name] not in TRAINED
    assert FACTORS["x6"] > max(TRAINED)
    small = Upsampling(NC, Scale.SMALL)
    assert list(small.sides.values()) == [20, 25, 30, 40, 60]


def test_splits_share_no_picture(tiny: Upsampling) -> None:
    low = tiny.setting.low
    seen = [set(map(bytes, tiny.pictures[s][low].flatten(1).numpy())) for s in tiny.pictures]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]


def test_scores_of_a_shifted_answer(tiny: Upsampling) -> None:
    found = scores(lambda batch: batch["target"] + 0.1, tiny.questions("test", 0))
    assert set(found) == {metric.name for metric in tiny.info.metrics}
    assert found["mse"] == pytest.approx((25.5) ** 2, rel=1e-5)
    assert found["psnr"] == pytest.approx(20, abs=1e-4)
    assert found["psnr_x2_5"] == pytest.approx(20, abs=1e-4)


def test_references_are_ordered(tiny: Upsampling) -> None:
    found = tiny.references(0)
    assert set(found) == {reference.name for reference in tiny.info.references}
    assert found["bicubic"] < found["bilinear"] < found["inverse-distance"]
    assert found["bicubic-x2"] > found["bicubic-x4"] > found["bicubic-x6"]


def test_without_attention_a_query_knows_the_mean_colour_only(tiny: Upsampling) -> None:
    batch = tiny.training_batch(generator())
    model = model_of(tiny, NoAttention)
    shuffled = batch["pixels"][:, torch.randperm(tiny.setting.low**2, generator=generator())]
    with torch.no_grad():
        before, after = model(batch), model({**batch, "pixels": shuffled})
        torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-5)
        other = model_of(tiny)
        assert not torch.allclose(other(batch), other({**batch, "pixels": shuffled}))


def test_the_target_is_not_read(tiny: Upsampling) -> None:
    batch = tiny.training_batch(generator())
    model = model_of(tiny)
    with torch.no_grad():
        assert torch.equal(model(batch), model({**batch, "target": batch["target"] + 1}))


def test_batches_and_questions_are_a_function_of_the_seed(tiny: Upsampling) -> None:
    first, again, other = (tiny.training_batch(generator(seed)) for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["pixels"], other["pixels"])
    one, two = tiny.questions("test", 0), tiny.questions("test", 0)
    assert torch.equal(one["x3"][0]["positions"], two["x3"][0]["positions"])


def test_tiny_trains_and_needs_attention(tiny: Upsampling) -> None:
    found = {}
    for attention in (SoftmaxAttention, NoAttention):
        torch.manual_seed(0)
        slots = Slots(NC, attention, SoftmaxAttention)
        model = tiny.build(slots)
        train(tiny, model, slots.candidates, 0, lambda **_: None)
        with torch.no_grad():
            found[attention] = tiny.evaluate(model.eval(), "test", 0)["mse"]
    assert found[SoftmaxAttention] < 0.8 * found[NoAttention]


def test_a_picture_is_painted_whole(tiny: Upsampling) -> None:
    with torch.no_grad():
        shown = tiny.artifacts(model_of(tiny), 0)
    assert [artifact.name for artifact in shown] == ["four-times"]


def test_base_takes_a_step() -> None:
    base = Upsampling(NC, Scale.BASE)
    batch = {name: x[:2] for name, x in base.training_batch(generator()).items()}
    loss = base.loss(model_of(base), batch)
    loss.backward()
    assert loss.isfinite()


def test_hashes_and_folders(tiny: Upsampling, tmp_path: Path) -> None:
    assert tiny.data_hash != Upsampling(NC, Scale.SMALL).data_hash
    with pytest.raises(UsageError, match="data folder"):
        Upsampling(NC, Scale.TINY, tmp_path)
