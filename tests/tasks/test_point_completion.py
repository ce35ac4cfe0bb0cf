"""The task of point completion: slots, batches, training, scores and pictures."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from attentions.softmax_exact import ExactSoftmaxAttention
from cab import Attention, Scale, Slots
from tasks.data.shapes import load_shapes
from tasks.point_completion.drawing import draw_cloud
from tasks.point_completion.geometry import farthest_points
from tasks.point_completion.pairs import spread
from tasks.point_completion.task import PointCompletion
from tests.tasks.point_completion_cases import (
    CANDIDATES,
    PATTERNS,
    build,
    by_loops,
    draw,
)


@pytest.fixture(scope="module", params=PATTERNS)
def task(request: pytest.FixtureRequest) -> PointCompletion:
    return PointCompletion(request.param, Scale.TINY)


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
