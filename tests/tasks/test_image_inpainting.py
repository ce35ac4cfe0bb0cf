"""Image inpainting: patches, inpainting without training, what a query knows, one tiny cell."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from cab import Batch, Scale
from tasks.image_inpainting.interpolation import harmonic, inverse_distance, visible_mean
from tasks.image_inpainting.model import mean_patch
from tasks.image_inpainting.task import ImageInpainting, in_patches, scores
from tasks.problems.hidden import hide
from tests.tasks.hidden_cases import (
    NC,
    generator,
    model_of,
    same,
    shuffled_known,
    trained_score,
    without,
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    # At these sizes a second thread costs more than it gives, most of all on a busy machine.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny() -> ImageInpainting:
    return ImageInpainting(NC, Scale.TINY)


def holed(picture: Tensor, patch: int, *hidden: int) -> Batch:
    """One picture (3, S, S) in 0..1 without the patches of these numbers."""
    patches = in_patches(picture[None], patch)
    mask = torch.zeros(1, patches.shape[1], dtype=torch.bool)
    mask[0, list(hidden)] = True
    return hide(patches, mask)


def test_a_patch_is_a_square_of_pixels_channels_first() -> None:
    picture = torch.arange(3 * 4 * 4).view(1, 3, 4, 4)
    patches = in_patches(picture, 2)
    assert patches.shape == (1, 4, 12)
    assert torch.equal(patches[0, 1], picture[0, :, 0:2, 2:4].flatten())
    assert torch.equal(patches[0, 2], picture[0, :, 2:4, 0:2].flatten())


def test_the_mean_is_that_of_each_channel() -> None:
    picture = torch.rand(3, 4, 4, generator=generator())
    batch = holed(picture, 2, 0)
    seen = torch.ones(4, 4, dtype=torch.bool)
    seen[:2, :2] = False
    expected = picture[:, seen].mean(1).repeat_interleave(4)
    torch.testing.assert_close(mean_patch(batch["known"])[0, 0], expected)
    torch.testing.assert_close(visible_mean(batch)[0, 0].float(), expected)


def test_harmonic_of_a_plane_is_the_plane() -> None:
    row, column = torch.arange(12.0), torch.arange(12.0)[:, None]
    plane = (0.05 * row + 0.02 * column).expand(3, 12, 12)
    batch = holed(plane, 4, 4)  # the patch in the middle, with pixels all around
    torch.testing.assert_close(harmonic(batch).float(), batch["target"])


def test_harmonic_pixels_are_the_mean_of_their_neighbours() -> None:
    batch = holed(torch.rand(3, 6, 6, generator=generator()), 2, 0, 1, 4, 8)
    patches = torch.cat([batch["known"].double(), harmonic(batch)], dim=1)
    places = torch.cat([batch["known_places"], batch["asked_places"]], dim=1)
    planes = patches[0, places[0].argsort()].T.unflatten(1, (3, 3))[None]
    picture = torch.nn.functional.pixel_shuffle(planes, 2)[0]
    corner = (picture[:, 0, 1] + picture[:, 1, 0]) / 2
    torch.testing.assert_close(picture[:, 0, 0], corner)
    around = (picture[:, 1, 2] + picture[:, 3, 2] + picture[:, 2, 1] + picture[:, 2, 3]) / 4
    torch.testing.assert_close(picture[:, 2, 2], around)


def test_inverse_distance_by_hand() -> None:
    picture = torch.rand(3, 6, 6, generator=generator())
    batch = holed(picture, 2, 4)
    sides = [picture[:, 0:2, 2:4], picture[:, 2:4, 0:2], picture[:, 2:4, 4:6], picture[:, 4:6, 2:4]]
    expected = torch.stack([side.flatten(1).mean(1) for side in sides]).mean(0)
    torch.testing.assert_close(inverse_distance(batch)[0, 0, ::4].float(), expected)


def test_scores_of_a_shifted_answer(tiny: ImageInpainting) -> None:
    found = scores(lambda batch: batch["target"] + 0.1, tiny.questions("test", 0))
    assert set(found) == {metric.name for metric in tiny.info.metrics}
    assert found["mse"] == pytest.approx(25.5**2, rel=1e-5)
    assert found["psnr"] == pytest.approx(20, abs=1e-4)
    assert found["mae"] == pytest.approx(25.5, rel=1e-5)


def test_references_are_ordered(tiny: ImageInpainting) -> None:
    found = tiny.references(0)
    assert set(found) == {reference.name for reference in tiny.info.references}
    assert found["harmonic"] < found["inverse-distance"] < found["visible-mean"]


def test_splits_share_no_picture(tiny: ImageInpainting) -> None:
    seen = [set(map(bytes, tiny.patches[split].flatten(1).numpy())) for split in tiny.patches]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]


def test_what_is_hidden_does_not_reach_the_answer(tiny: ImageInpainting) -> None:
    """Whole pictures that differ in hidden patches alone are asked and answered the same."""
    patches = tiny.patches["train"][:4]
    batch = tiny._hide(patches, generator())
    hidden = torch.zeros(patches.shape[:2], dtype=torch.bool).scatter_(
        1, batch["asked_places"], True
    )
    other = tiny._hide(torch.where(hidden[..., None], 255 - patches, patches), generator())
    assert same(without(batch, "target"), without(other, "target"))
    model = model_of(tiny)
    with torch.no_grad():
        assert torch.equal(model(batch), model(other))


def test_the_order_of_the_known_does_not_matter(tiny: ImageInpainting) -> None:
    batch = tiny.training_batch(generator())
    model = model_of(tiny)
    with torch.no_grad():
        shuffled = shuffled_known(batch, "known", "known_places")
        torch.testing.assert_close(model(batch), model(shuffled), atol=1e-5, rtol=1e-5)
        moved = {**shuffled, "known_places": batch["known_places"]}
        assert not torch.allclose(model(batch), model(moved), atol=1e-3)


def test_without_attention_a_query_knows_the_mean_colour_only(tiny: ImageInpainting) -> None:
    batch = tiny.training_batch(generator())
    model = model_of(tiny, NoAttention)
    moved = {**batch, "known": batch["known"].flip(1)}
    with torch.no_grad():
        torch.testing.assert_close(model(batch), model(moved), atol=1e-5, rtol=1e-5)


def test_holes_are_fresh_in_training_and_fixed_in_tests(tiny: ImageInpainting) -> None:
    draws = generator(3)
    first, second = tiny.training_batch(draws), tiny.training_batch(draws)
    assert not torch.equal(first["asked_places"], second["asked_places"])
    assert same(first, tiny.training_batch(generator(3)))
    one, two = tiny.questions("test", 0), tiny.questions("test", 0)
    assert all(same(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(
        one[0]["asked_places"], tiny.questions("validation", 0)[0]["asked_places"][: len(one[0])]
    )


def test_tiny_trains_and_needs_attention(tiny: ImageInpainting) -> None:
    assert trained_score(tiny, SoftmaxAttention) < 0.7 * trained_score(tiny, NoAttention)


def test_base_takes_a_step() -> None:
    base = ImageInpainting(NC, Scale.BASE)
    batch = {name: x[:2] for name, x in base.training_batch(generator()).items()}
    assert batch["known"].shape[1] + batch["target"].shape[1] == 256
    loss = base.loss(model_of(base), batch)
    loss.backward()
    assert loss.isfinite()


def test_hashes_tell_scales_apart(tiny: ImageInpainting) -> None:
    assert tiny.data_hash != ImageInpainting(NC, Scale.SMALL).data_hash
