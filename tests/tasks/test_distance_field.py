"""Distance fields: what is drawn, references, what a query knows, one tiny cell."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from cab import Scale
from tasks.distance_field.drawing import draw_slice, slice_places
from tasks.distance_field.model import space_code
from tasks.distance_field.sampling import NOISE, distances, draw
from tasks.distance_field.task import DistanceField, nearest_known, scores
from tests.tasks.hidden_cases import NC, generator, model_of, same, shuffled_known, trained_score


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    # At these sizes a second thread costs more than it gives, most of all on a busy machine.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny() -> DistanceField:
    return DistanceField(NC, Scale.TINY)


def test_distances_by_hand() -> None:
    points = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]])
    places = torch.tensor([[[0.0, 3.0, 4.0], [0.75, 0.0, 0.0], [1.0, 0.0, -2.0]]])
    torch.testing.assert_close(distances(places, points), torch.tensor([[5.0, 0.25, 2.0]]))


def test_known_points_lie_on_the_turned_shape_and_keep_their_height() -> None:
    shapes = torch.rand(3, 300, 3, generator=generator()) - 0.5
    batch = draw(shapes, 20, 30, generator())
    for shape, known in zip(shapes, batch["known"], strict=True):
        nearest = torch.cdist(known[:, 1:2], shape[:, 1:2]).amin(1)
        assert nearest.max() < 1e-6, "turns are about the vertical"
        radius, radii = known[:, ::2].norm(dim=1), shape[:, ::2].norm(dim=1)
        assert (radius[:, None] - radii).abs().amin(1).max() < 1e-5
    everything = draw(shapes, 200, 200, generator())
    assert everything["known"].unique(dim=1).shape[1] == 200


def test_targets_are_distances_to_the_whole_shape() -> None:
    shapes = torch.rand(2, 300, 3, generator=generator()) - 0.5
    # All points but those that places are drawn about are known: few lie between.
    batch = draw(shapes, 250, 100, generator())
    assert (batch["target"] <= nearest_known(batch) + 1e-5).all()
    assert (batch["target"] < nearest_known(batch) - 1e-3).any()


def test_half_the_places_lie_near_the_surface_in_random_order() -> None:
    shapes = torch.rand(400, 100, 3, generator=generator()) - 0.5
    shapes[..., 1] = 0  # flat: the height of a place near it is the noise alone
    batch = draw(shapes, 10, 40, generator())
    near = batch["near"]
    assert (near.sum(1) == 20).all()
    assert (near.double().mean(0) - 0.5).abs().max() < 0.15
    height = batch["asked"][..., 1]
    assert height[near].std().item() == pytest.approx(NOISE, rel=0.05)
    assert height[~near].abs().max() < 0.5
    assert height[~near].std().item() == pytest.approx(12**-0.5, rel=0.05)


def test_codes_are_most_alike_where_places_are_near() -> None:
    places = torch.rand(200, 3, generator=generator()) - 0.5
    moved = places + 0.02 * torch.randn(200, 3, generator=generator(1))
    code, other = space_code(places, 64), space_code(moved, 64)
    assert code.shape == (200, 64)
    right = (other @ code.T).argmax(1) == torch.arange(200)
    assert right.double().mean() > 0.95
    with pytest.raises(ValueError, match="6 at least"):
        space_code(places, 4)


def test_scores_of_a_shifted_answer(tiny: DistanceField) -> None:
    found = scores(
        lambda batch: batch["target"] + torch.where(batch["near"], 0.01, -0.03),
        tiny.questions("test", 0),
    )
    assert set(found) == {metric.name for metric in tiny.info.metrics}
    assert found["mae_near"] == pytest.approx(10, rel=1e-4)
    assert found["mae_anywhere"] == pytest.approx(30, rel=1e-4)
    assert found["mae"] == pytest.approx(20, rel=1e-4)


def test_references_are_ordered(tiny: DistanceField) -> None:
    found = tiny.references(0)
    assert set(found) == {reference.name for reference in tiny.info.references}
    assert found["nearest-known-fitted"] < found["nearest-known"] < found["median"]


def test_splits_share_no_shape(tiny: DistanceField) -> None:
    seen = [set(map(bytes, tiny.shapes[split].flatten(1).numpy())) for split in tiny.shapes]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]


def test_distances_and_points_that_are_not_known_do_not_reach_the_answer(
    tiny: DistanceField,
) -> None:
    batch = tiny.training_batch(generator())
    model = model_of(tiny)
    bare = {name: batch[name] for name in ("known", "asked")}
    with torch.no_grad():
        assert torch.equal(model(batch), model(bare))


def test_queries_do_not_see_each_other(tiny: DistanceField) -> None:
    batch = tiny.training_batch(generator())
    model = model_of(tiny)
    few = {**batch, "asked": batch["asked"][:, :5]}
    with torch.no_grad():
        torch.testing.assert_close(model(batch)[:, :5], model(few), atol=1e-5, rtol=1e-5)


def test_the_order_of_the_known_does_not_matter(tiny: DistanceField) -> None:
    batch = tiny.training_batch(generator())
    model = model_of(tiny)
    with torch.no_grad():
        shuffled = shuffled_known(batch, "known")
        torch.testing.assert_close(model(batch), model(shuffled), atol=1e-5, rtol=1e-5)


def test_without_attention_a_query_knows_its_place_only(tiny: DistanceField) -> None:
    batch = tiny.training_batch(generator())
    model = model_of(tiny, NoAttention)
    with torch.no_grad():
        assert torch.equal(model(batch), model({**batch, "known": batch["known"].flip(0)}))


def test_draws_are_fresh_in_training_and_fixed_in_tests(tiny: DistanceField) -> None:
    draws = generator(3)
    first, second = tiny.training_batch(draws), tiny.training_batch(draws)
    assert not torch.equal(first["known"], second["known"])
    assert same(first, tiny.training_batch(generator(3)))
    one, two = tiny.questions("test", 0), tiny.questions("test", 0)
    assert all(same(a, b) for a, b in zip(one, two, strict=True))


def test_a_slice_is_seen_from_the_front() -> None:
    places = slice_places(8)
    assert places[0].tolist() == [-0.4375, 0.4375, 0.0], "top left"
    assert places[-1].tolist() == [0.4375, -0.4375, 0.0]
    picture = draw_slice(places.norm(dim=1), 8)
    assert picture.shape == (8, 8, 3)
    assert picture[3:5, 3:5].sum() < picture[0:2, 0:2].sum(), "dark at the surface"


def test_tiny_trains_and_needs_attention(tiny: DistanceField) -> None:
    assert trained_score(tiny, SoftmaxAttention) < 0.85 * trained_score(tiny, NoAttention)


def test_base_takes_a_step() -> None:
    base = DistanceField(NC, Scale.BASE)
    batch = {name: x[:2] for name, x in base.training_batch(generator()).items()}
    assert (batch["asked"].shape[1], batch["known"].shape[1]) == base.length()
    loss = base.loss(model_of(base), batch)
    loss.backward()
    assert loss.isfinite()


def test_hashes_tell_scales_apart(tiny: DistanceField) -> None:
    assert tiny.data_hash != DistanceField(NC, Scale.SMALL).data_hash
