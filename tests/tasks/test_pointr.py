"""PoinTr: its published size and paths, and what each part computes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from attentions.softmax_exact import ExactSoftmaxAttention
from cab import AttentionSpec, Pattern, Scale, Slots
from tasks.point_completion.geometry import farthest_points, take
from tasks.point_completion.grouper import EdgeConvolution, Grouper, Stage
from tasks.point_completion.heads import Folding
from tasks.point_completion.layers import GeometryAware, TokenNorm
from tasks.point_completion.pointr import PUBLISHED
from tasks.point_completion.task import PointCompletion
from tests.tasks.point_completion_cases import (
    PATTERNS,
    SMALL_PUBLISHED,
    build,
    cloud,
    count,
    draw,
    pointr,
)


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
