"""Point completion: distances by the book, and views that hide a half."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tasks.point_completion import geometry
from tasks.point_completion.chamfer import chamfer_l1, completion_scores, nearest_distances
from tasks.point_completion.geometry import farthest_points, nearest
from tasks.point_completion.pairs import some, spread
from tasks.point_completion.views import draw_views, turns
from tests.tasks.point_completion_cases import (
    by_loops,
    cloud,
)

# Distances


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
