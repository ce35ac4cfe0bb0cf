"""Point completion: distances by the book, views that hide a half, PoinTr and its paths."""

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
from cab import Attention, AttentionSpec, Batch, Pattern, Scale, Slots
from tasks.data.shapes import load_shapes
from tasks.point_completion import geometry
from tasks.point_completion.chamfer import chamfer_l1, completion_scores, nearest_distances
from tasks.point_completion.drawing import draw_cloud
from tasks.point_completion.geometry import farthest_points, nearest, take
from tasks.point_completion.grouper import EdgeConvolution, Grouper, Stage
from tasks.point_completion.heads import Folding
from tasks.point_completion.layers import GeometryAware, TokenNorm
from tasks.point_completion.pairs import some, spread
from tasks.point_completion.pointr import PUBLISHED, Geometry, PoinTr
from tasks.point_completion.task import PointCompletion
from tasks.point_completion.views import draw_views, turns

PATTERNS = [Pattern.NONCAUSAL_CROSS, Pattern.NONCAUSAL_SELF]
CANDIDATES = [SoftmaxAttention, ExactSoftmaxAttention, NoAttention]

SMALL_PUBLISHED = Geometry(
    dim=16,
    heads=2,
    encoder_layers=2,
    decoder_layers=2,
    queries=12,
    patch_side=3,
    folding_hidden=8,
    stages=(Stage(8), Stage(16, points=24), Stage(8, points=16)),
    neighbours=5,
)
"""The published paths in little"""


@pytest.fixture(scope="module", params=PATTERNS)
def task(request: pytest.FixtureRequest) -> PointCompletion:
    return PointCompletion(request.param, Scale.TINY)


def build(task: PointCompletion, candidate: type[Attention], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return task.build(Slots(task.pattern, candidate, SoftmaxAttention, seed=seed))


def pointr(
    size: Geometry,
    candidate: type[Attention] = SoftmaxAttention,
    pattern: Pattern = Pattern.NONCAUSAL_SELF,
) -> PoinTr:
    torch.manual_seed(0)
    return PoinTr(Slots(pattern, candidate, SoftmaxAttention), size)


def draw(task: PointCompletion, seed: int) -> Batch:
    return task.training_batch(torch.Generator().manual_seed(seed))


def cloud(*size: int, seed: int = 0) -> Tensor:
    return torch.rand(*size, 3, generator=torch.Generator().manual_seed(seed)) - 0.5


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# Distances


def by_loops(predicted: Tensor, truth: Tensor, threshold: float) -> dict[str, list[float]]:
    """The definitions, point by point."""
    scores: dict[str, list[float]] = {"cd_l1": [], "cd_l2": [], "f_score": []}
    for one, other in zip(predicted.tolist(), truth.tolist(), strict=True):
        there = [min(math.dist(p, q) for q in other) for p in one]
        back = [min(math.dist(q, p) for p in one) for q in other]
        l1 = (sum(there) / len(there) + sum(back) / len(back)) / 2
        l2 = sum(d**2 for d in there) / len(there) + sum(d**2 for d in back) / len(back)
        precision = sum(d < threshold for d in there) / len(there)
        recall = sum(d < threshold for d in back) / len(back)
        both = precision + recall
        scores["cd_l1"].append(1000 * l1)
        scores["cd_l2"].append(1000 * l2)
        scores["f_score"].append(2 * precision * recall / both if both else 0.0)
    return scores


@pytest.mark.parametrize("threshold", [0.02, 0.2, 3.0])
def test_scores_are_those_of_brute_force(threshold: float) -> None:
    predicted, truth = cloud(3, 40), cloud(3, 55, seed=1)
    found = completion_scores(predicted, truth, threshold)
    for name, expected in by_loops(predicted, truth, threshold).items():
        np.testing.assert_allclose(found[name].numpy(), expected, rtol=2e-6)
    torch.testing.assert_close(1000 * chamfer_l1(predicted, truth), found["cd_l1"])


def test_scores_of_known_clouds() -> None:
    """A point 0.3 away from one true point and, with the other, 0.5: by hand."""
    predicted = torch.tensor([[[0.3, 0.0, 0.0]]])
    truth = torch.tensor([[[0.0, 0.0, 0.0], [0.3, 0.5, 0.0]]])
    scores = completion_scores(predicted, truth, threshold=0.4)
    assert scores["cd_l1"].item() == pytest.approx(1000 * (0.3 + (0.3 + 0.5) / 2) / 2)
    assert scores["cd_l2"].item() == pytest.approx(1000 * (0.09 + (0.09 + 0.25) / 2))
    assert scores["f_score"].item() == pytest.approx(2 * 1 * 0.5 / 1.5)
    perfect = completion_scores(truth, truth, threshold=0.01)
    assert [value.item() for value in perfect.values()] == [0, 0, 1]
    far = completion_scores(truth + 10, truth, threshold=0.01)
    assert far["f_score"].item() == 0


def test_distances_pull_points_to_their_nearest() -> None:
    points = torch.tensor([[[0.3, 0.0, 0.0], [0.0, 0.0, 0.0]]], requires_grad=True)
    others = torch.tensor([[[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]]])
    nearest_distances(points, others).sum().backward()
    assert points.grad is not None
    # The second point lies on its nearest: there is no direction to go, and nothing infinite.
    assert points.grad.tolist() == [[[1, 0, 0], [0, 0, 0]]]


def test_nearest_in_parts_is_nearest_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    points, others = cloud(2, 31), cloud(2, 17, seed=1)
    whole = nearest(points, others, 3)
    monkeypatch.setattr(geometry, "_LARGEST_TABLE", 2 * 17 * 4)
    assert torch.equal(nearest(points, others, 3).sort().values, whole.sort().values)
    expected = torch.cdist(points.double(), others.double()).argsort(-1)[..., :3]
    assert torch.equal(whole.sort().values, expected.sort().values)
    with pytest.raises(ValueError, match="18 neighbours in a cloud of 17"):
        nearest(points, others, 18)


def test_farthest_points_are_spread() -> None:
    points = cloud(3, 60)
    chosen = farthest_points(points, 9)
    assert torch.equal(farthest_points(points, 4), chosen[:, :4])
    for row, numbers in zip(points, chosen.tolist(), strict=True):
        assert numbers[0] == 0
        for step in range(1, 9):
            gaps = torch.cdist(row, row[numbers[:step]]).amin(1)
            assert gaps[numbers[step]].item() == pytest.approx(gaps.max().item(), rel=1e-5)
    with pytest.raises(ValueError, match="61 farthest points of a cloud of 60"):
        farthest_points(points, 61)


# Views


def test_views_show_the_half_that_faces_a_direction() -> None:
    """No point of the other half of the candidates would be nearer to where it is looked from."""
    sphere = torch.randn(5000, 3, generator=torch.Generator().manual_seed(1))
    sphere = sphere / sphere.norm(dim=1, keepdim=True) / 2
    batch = draw_views(sphere.expand(8, -1, -1), 2000, 1000, torch.Generator().manual_seed(0))
    partial, complete = batch["partial"], batch["complete"]
    assert partial.shape == (8, 2000, 3)
    assert complete.shape == (8, 1000, 3)
    direction = partial.mean(1, keepdim=True)
    direction = direction / direction.norm(dim=2, keepdim=True)
    # Half a sphere lies on one side of a plane through its centre.
    assert (partial * direction).sum(-1).amin() > -0.05
    assert (complete * direction).sum(-1).amin() < -0.48
    assert len({tuple(row) for row in direction[:, 0].tolist()}) == 8


def test_no_point_is_seen_and_to_be_predicted() -> None:
    shapes = cloud(4, 64)
    batch = draw_views(shapes, 16, 32, torch.Generator().manual_seed(0))
    assert torch.cdist(batch["partial"], batch["complete"]).amin() > 1e-3
    # Turns keep heights: every drawn point is one of the shape's.
    for name in ("partial", "complete"):
        height = batch[name][..., 1, None] - shapes[..., 1][:, None]
        assert height.abs().amin(-1).max() == 0
    with pytest.raises(ValueError, match="17 seen and 32 other points of shapes of 64"):
        draw_views(shapes, 17, 32, torch.Generator())


def test_shapes_are_turned_about_the_vertical() -> None:
    rotation = turns(torch.tensor([0.0, math.pi / 2]))
    torch.testing.assert_close(rotation[0], torch.eye(3))
    ahead = torch.tensor([[1.0, 2.0, 0.0]]) @ rotation[1]
    torch.testing.assert_close(ahead, torch.tensor([[0.0, 2.0, -1.0]]), atol=1e-6, rtol=0)
    assert torch.allclose(rotation @ rotation.transpose(1, 2), torch.eye(3), atol=1e-6)


def test_rows_are_chosen_evenly_and_at_random() -> None:
    assert spread(5, 5) == [0, 1, 2, 3, 4]
    assert spread(6, 3) == [0, 2, 4]
    assert spread(2, 5) == [0, 1, 0, 1, 0]
    generator = torch.Generator().manual_seed(0)
    assert sorted(some(7, 7, generator)) == list(range(7))
    assert {(some(3, 7, generator)).count(number) for number in range(3)} == {2, 3}


# The backbone


def by_hand(dim: int, encoder: int, decoder: int, queries: int) -> int:
    """Parameters of PoinTr, part by part, with biases of queries, keys and values."""

    def linear(channels: int, result: int) -> int:
        return channels * result + result

    def token_mlp(channels: int, hidden: int, result: int) -> int:
        return linear(channels, hidden) + 2 * hidden + linear(hidden, result)

    def edge(channels: int, result: int) -> int:
        return 2 * channels * result + 2 * result

    grouper = linear(3, 8) + edge(8, 32) + edge(32, 64) + edge(64, 64) + edge(64, 128)
    inputs = token_mlp(3, 128, dim) + token_mlp(128, dim, dim)
    attention, norm = 4 * linear(dim, dim), 2 * dim
    feed_forward = linear(dim, 2 * dim) + linear(2 * dim, dim)
    neighbours = 2 * linear(2 * dim, dim)
    layers = encoder * (attention + feed_forward + 2 * norm) + neighbours
    layers += decoder * (2 * attention + feed_forward + 4 * norm) + 2 * neighbours
    query = linear(1024 + 3, 1024) + linear(1024, 1024) + linear(1024, dim)
    centres = linear(1024, 1024) + linear(1024, 3 * queries)
    pooled = token_mlp(dim, 1024, 1024)
    features = pooled + linear(1024 + dim + 3, dim)

    def fold(channels: int) -> int:
        return token_mlp(channels, 256, 128) + 2 * 128 + linear(128, 3)

    return (
        grouper
        + inputs
        + layers
        + pooled
        + centres
        + query
        + features
        + fold(dim + 2)
        + fold(dim + 3)
    )


def test_parameters_of_the_published_model() -> None:
    """PoinTr has no bias of queries, keys and values: 31.28 million without them.

    Its code also builds the unused neighbour paths of the other layers; they are not counted.
    """
    model = pointr(PUBLISHED)
    assert count(model) == by_hand(384, 6, 8, 224) == 31_302_150
    biases = (6 + 2 * 8) * 3 * 384
    assert count(model) - biases == 31_276_806


@pytest.mark.parametrize("pattern", PATTERNS)
def test_paper_scale_is_the_published_model(pattern: Pattern) -> None:
    task = PointCompletion(pattern, Scale.PAPER)
    assert task.geometry == PUBLISHED
    assert task.geometry.predicted == 14_336
    self_slots = pattern is Pattern.NONCAUSAL_SELF
    assert task.length() == ((224, 224) if self_slots else (224, 128))
    slots = Slots(pattern, ExactSoftmaxAttention, SoftmaxAttention)
    model = task.build(slots)
    assert len(slots.candidates) == (6 + 8 if self_slots else 8)
    assert all(module.spec.head_dim == 64 for module in slots.candidates)
    recipe = task.recipe
    assert (recipe.learning_rate, recipe.weight_decay, recipe.batch_size) == (5e-4, 5e-4, 48)
    assert recipe.steps == 300 * (581 // 48)
    batch = next(iter(task.pairs.evaluation_batches("test", 1, 1)))
    with torch.no_grad():
        coarse, fine = model.eval()(batch["partial"])
    assert coarse.shape == (1, 2 * 224, 3)
    assert fine.shape == (1, 14_336 + 512, 3)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_base_scale_takes_a_step(pattern: Pattern, monkeypatch: pytest.MonkeyPatch) -> None:
    task = PointCompletion(pattern, Scale.BASE)
    monkeypatch.setattr(PointCompletion, "recipe", replace(task.recipe, batch_size=2))
    model = build(task, SoftmaxAttention).eval()
    batch = draw(task, 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    before = task.loss(model, batch)
    before.backward()
    optimizer.step()
    assert task.loss(model, batch).item() < before.item()


def test_published_paths_carry_the_input_around_attention() -> None:
    """With no attention at all a query still follows every part of the input."""
    points = cloud(1, 48)
    moved = points.clone()
    moved[0, 17] += 0.3
    for pattern in PATTERNS:
        model = pointr(SMALL_PUBLISHED, NoAttention, pattern).eval()
        with torch.no_grad():
            # What was seen stands at the end.
            before, after = (model(x)[1][:, :-48] for x in (points, moved))
        assert not torch.allclose(before, after)
    model = pointr(replace(SMALL_PUBLISHED, published_paths=False), NoAttention, PATTERNS[0]).eval()
    with torch.no_grad():
        assert torch.equal(model(points)[1], model(moved)[1])


def test_published_completion_keeps_what_was_seen() -> None:
    points = cloud(2, 48)
    with torch.no_grad():
        coarse, fine = pointr(SMALL_PUBLISHED).eval()(points)
    assert coarse.shape == (2, 2 * 12, 3)
    assert fine.shape == (2, 12 * 9 + 48, 3)
    assert torch.equal(fine[:, -48:], points)
    assert torch.cdist(coarse[:, 12:], points).amin(-1).max() < 1e-3


def test_published_start_leaves_the_slots_alone() -> None:
    class Fixed(SoftmaxAttention):
        def __init__(self, spec: AttentionSpec) -> None:
            super().__init__(spec)
            self.own = nn.Linear(3, 3)
            nn.init.ones_(self.own.weight)

    for module in pointr(SMALL_PUBLISHED, Fixed).modules():
        if isinstance(module, Fixed):
            assert torch.equal(module.own.weight, torch.ones(3, 3))
    started = dict(pointr(replace(SMALL_PUBLISHED, dim=64)).named_parameters())
    assert started["decoder.0.feed_forward.0.weight"].std().item() == pytest.approx(0.02, rel=0.1)
    assert not started["decoder.0.feed_forward.0.bias"].any()


def test_edge_convolution_is_its_formula() -> None:
    """Per centre: the largest over its neighbours of the normed, rectified edge."""
    torch.manual_seed(0)
    convolution = EdgeConvolution(4, 8, neighbours=3)
    points, features = cloud(1, 9), torch.randn(1, 9, 4)
    centres, own = points[:, :5], features[:, :5]
    edges = torch.empty(5, 3, 8)
    for i in range(5):
        order = (points[0] - centres[0, i]).norm(dim=1).argsort()[:3]
        for j, neighbour in enumerate(order.tolist()):
            difference = features[0, neighbour] - own[0, i]
            edges[i, j] = convolution.edge(torch.cat([difference, own[0, i]]))
    groups = edges.unflatten(2, (4, 2))
    mean = groups.mean((0, 1, 3), keepdim=True)
    variance = groups.var((0, 1, 3), keepdim=True, correction=0)
    normed = ((groups - mean) / (variance + 1e-5).sqrt()).flatten(2)
    expected = torch.where(normed > 0, normed, 0.2 * normed).amax(1)
    found = convolution(centres, own, points, features)[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_proxies_lie_on_the_cloud() -> None:
    torch.manual_seed(0)
    points = cloud(2, 40)
    places, features = Grouper((Stage(8), Stage(12, points=10)), neighbours=4)(points)
    assert torch.equal(places, take(points, farthest_points(points, 10)))
    assert features.shape == (2, 10, 12)


def test_geometry_aware_path_reads_the_given_neighbours_only() -> None:
    torch.manual_seed(0)
    path = GeometryAware(6)
    mixed, x, source = torch.randn(1, 4, 6), torch.randn(1, 4, 6), torch.randn(1, 5, 6)
    index = torch.tensor([[[0, 1], [1, 2], [2, 3], [0, 3]]])
    other = source.clone()
    other[:, 2] += 1
    changed = (path(mixed, x, source, index) - path(mixed, x, other, index)).abs().amax(-1) > 0
    assert changed.tolist() == [[False, True, True, False]]


def test_patches_are_folded_from_a_square() -> None:
    torch.manual_seed(0)
    folding = Folding(8, side=3, hidden=16).eval()
    corners = {(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)}
    assert {tuple(point) for point in folding.seed.tolist()} == corners
    x = torch.randn(2, 5, 8)
    patches = folding(x)
    assert patches.shape == (2, 5, 9, 3)
    torch.testing.assert_close(folding(x[1:, 3:4]), patches[1:, 3:4])


def test_token_norm_is_over_all_tokens() -> None:
    x = 3 + 2 * torch.randn(4, 50, 6)
    normed = TokenNorm(6)(x)
    torch.testing.assert_close(normed.mean((0, 1)), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(normed.var((0, 1), correction=0), torch.ones(6), atol=1e-3, rtol=0)


# The task


def test_slots_are_those_of_the_pattern(task: PointCompletion) -> None:
    slots = Slots(task.pattern, ExactSoftmaxAttention, SoftmaxAttention)
    model = task.build(slots)
    assert len(slots.candidates) == (2 if task.pattern.cross else 4)
    assert {module.pattern for module in slots.candidates} == {task.pattern}
    sizes: list[tuple[int, int]] = []
    for module in slots.candidates:
        module.register_forward_hook(
            lambda _, inputs, __: sizes.append((inputs[0].shape[2], inputs[1].shape[2]))
        )
    with torch.no_grad():
        model.eval()(draw(task, 0)["partial"])
    assert max(sizes) == task.length()


def test_shared_weights_do_not_depend_on_the_candidate(task: PointCompletion) -> None:
    states = [build(task, candidate).state_dict() for candidate in CANDIDATES]
    for state in states[1:]:
        assert all(torch.equal(state[name], tensor) for name, tensor in states[0].items())
    other = build(task, SoftmaxAttention, seed=1).state_dict()
    assert not all(torch.equal(other[name], tensor) for name, tensor in states[0].items())


def test_batches_follow_the_generator(task: PointCompletion) -> None:
    one, same, other = draw(task, 1), draw(task, 1), draw(task, 2)
    amounts = task.amounts
    assert one["partial"].shape == (task.recipe.batch_size, amounts.seen, 3)
    assert one["complete"].shape == (task.recipe.batch_size, amounts.training_truth, 3)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["partial"], other["partial"])


def test_training_views_are_of_training_shapes(task: PointCompletion) -> None:
    """Turned about the vertical, points keep height and distance from the axis."""
    corpus = load_shapes()
    batch = draw(task, 3)["complete"]

    def lies_in(points: Tensor) -> list[bool]:
        known, seen = (
            torch.stack([cloud[..., 1], cloud[..., [0, 2]].norm(dim=-1)], dim=-1).double()
            for cloud in (points, batch[:, :10])
        )
        return [
            any((torch.cdist(row, shape).amin(1) < 1e-5).all() for shape in known) for row in seen
        ]

    assert all(lies_in(corpus.train.points))
    assert not any(lies_in(torch.cat([corpus.validation.points, corpus.test.points])))


def test_evaluation_views_are_fixed_and_of_their_split(task: PointCompletion) -> None:
    shapes = load_shapes().test.points
    once = list(task.pairs.evaluation_batches("test", 77, 50))
    again = list(task.pairs.evaluation_batches("test", 77, 50))
    assert [len(batch["partial"]) for batch in once] == [50, 27]
    for one, other in zip(once, again, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    rows = spread(len(shapes), 77)
    truth = torch.cat([batch["complete"] for batch in once])
    height = truth[:, :20, None, 1] - shapes[rows][:, None, :, 1]
    assert height.abs().amin(-1).max() == 0


def test_without_attention_nothing_is_learnt_of_the_input(task: PointCompletion) -> None:
    """Cross: the completion is the same for all. Self: it hangs on what the few proxies show."""
    points = draw(task, 0)["partial"]
    with torch.no_grad():
        without = build(task, NoAttention).eval()(points)[1]
        model = build(task, SoftmaxAttention).eval()
        whole = model(points)[1]
        last = points.clone()
        last[:, farthest_points(points, task.geometry.proxies)[0, -1]] *= 0.5
        assert not torch.allclose(whole, model(last)[1])
    assert not torch.allclose(whole[0], whole[1])
    if task.pattern.cross:
        torch.testing.assert_close(without, without[:1].expand_as(without))


def test_batch_rows_are_independent_in_eval_mode(task: PointCompletion) -> None:
    model = build(task, SoftmaxAttention).eval()
    points = draw(task, 0)["partial"]
    with torch.no_grad():
        torch.testing.assert_close(model(points)[1][:1], model(points[:1])[1])


@pytest.mark.parametrize("candidate", CANDIDATES)
def test_loss_is_coarse_and_fine_and_falls(
    task: PointCompletion, candidate: type[Attention]
) -> None:
    model = build(task, candidate)
    batch = draw(task, 0)
    coarse, fine = model(batch["partial"])
    parts = [by_loops(points[:2], batch["complete"][:2], 1)["cd_l1"] for points in (coarse, fine)]
    pair = {name: points[:2] for name, points in batch.items()}

    class Given(nn.Module):
        def forward(self, _: Tensor) -> tuple[Tensor, Tensor]:
            return coarse[:2], fine[:2]

    expected = sum(map(sum, parts)) / 2 / 1000
    assert task.loss(Given(), pair).item() == pytest.approx(expected, rel=1e-5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = task.loss(model, batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_training_repeats_to_the_last_bit(task: PointCompletion) -> None:
    def trained(seed: int) -> Tensor:
        model = build(task, SoftmaxAttention, seed)
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for _ in range(2):
            optimizer.zero_grad()
            task.loss(model, task.training_batch(generator)).backward()
            optimizer.step()
        with torch.no_grad():
            return model.eval()(draw(task, 9)["partial"])[1]

    once = trained(0)
    assert torch.equal(once, trained(0))
    assert not torch.allclose(once, trained(1))


def test_evaluation_reports_the_declared_metrics_and_repeats(task: PointCompletion) -> None:
    model = build(task, SoftmaxAttention).eval()
    with torch.no_grad():
        once, again = task.evaluate(model, "test", 0), task.evaluate(model, "test", 1)
        validation = task.evaluate(model, "validation", 0)
    assert list(once) == [metric.name for metric in task.info.metrics]
    assert once == again
    assert validation != once


def test_artifact_shows_shapes_side_by_side(task: PointCompletion) -> None:
    model = build(task, SoftmaxAttention).eval()
    with torch.no_grad():
        (artifact,) = task.artifacts(model, 0)
    picture = np.asarray(Image.open(io.BytesIO(artifact.content)))
    assert picture.shape == (4 * 152 - 2, 3 * 152 - 2, 3)
    assert len(artifact.content) < 200_000
    for row in range(4):
        for column in range(3):
            tile = picture[row * 152 : row * 152 + 150, column * 152 : column * 152 + 150]
            assert (tile < 200).any()


def test_clouds_are_drawn_upright_and_near_over_far() -> None:
    red, size = (255, 0, 0), 100
    top = draw_cloud(np.array([[0, 0.4, 0]]), red, size)
    rows, columns = np.nonzero((top != 255).any(-1))
    assert rows.mean() < size / 3
    assert abs(columns.mean() - size / 2) < 2
    # Along the line of sight the nearer of two points hides the other.
    sight = np.array([0.520, 0.423, 0.742]) * 0.4
    alone = draw_cloud(sight[None], red, size)
    both = draw_cloud(np.stack([sight, -sight]), red, size)
    np.testing.assert_array_equal(alone, both)
    assert (draw_cloud(np.array([[0, 5.0, 0]]), red, size) == 255).all()
