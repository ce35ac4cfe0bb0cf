"""Coordinates one after the other: streams of shapes, references, scores."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.softmax import SoftmaxAttention
from cab import Pattern, Scale, Slots
from runners.training import train
from tasks.shape_modeling.coordinates import AXES, as_points, contexts, draw_streams
from tasks.shape_modeling.task import ShapeModeling

CS = Pattern.CAUSAL_SELF


@pytest.fixture(scope="module")
def tiny() -> ShapeModeling:
    return ShapeModeling(CS, Scale.TINY)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def quarter_turns(points: Tensor) -> list[Tensor]:
    """(P, 3) points turned about the vertical, four times."""
    found = []
    for _ in range(4):
        found.append(points)
        x, up, z = points.unbind(-1)
        points = torch.stack([z, up, -x], dim=-1)
    return found


def test_streams_are_points_of_the_shape_from_the_bottom_up() -> None:
    shapes = torch.rand(50, 40, 3, generator=generator()) - 0.5
    levels = 64
    streams = draw_streams(shapes, 10, levels, generator(1))
    assert streams.shape == (50, 10 * AXES)
    points, turns = as_points(streams, levels), set()
    for shape, stream, found in zip(shapes, streams.unflatten(1, (-1, AXES)), points, strict=True):
        triples = [tuple(point) for point in stream.tolist()]
        assert triples == sorted(triples)
        reach = [torch.cdist(found, turned).amin(1).max() for turned in quarter_turns(shape)]
        turns.add(int(torch.stack(reach).argmin()))
        # Half a level along each axis.
        assert min(reach) <= 0.5 * 3**0.5 / levels + 1e-6
    assert turns == {0, 1, 2, 3}


def test_all_points_are_as_likely_and_drawn_once() -> None:
    heights = (torch.arange(8) + 0.5) / 8 - 0.5
    shape = torch.stack([torch.zeros(8), heights, torch.zeros(8)], dim=-1)
    streams = draw_streams(shape.expand(4000, -1, -1), 2, 8, generator())
    drawn = streams.unflatten(1, (-1, AXES))[..., 0]
    assert (drawn[:, 0] < drawn[:, 1]).all()
    share = torch.bincount(drawn.flatten(), minlength=8) / 8000
    assert (share - 1 / 8).abs().max() < 4 * (1 / 8 / 8000) ** 0.5


def test_contexts_by_hand() -> None:
    axis, previous = contexts(torch.tensor([[5, 6, 7, 8, 9, 4]]), 16)
    assert axis.tolist() == [[0, 1, 2, 0, 1, 2]]
    assert previous.tolist() == [[16, 16, 16, 5, 6, 7]]


def test_evaluation_is_fixed_and_apart_from_training(tiny: ShapeModeling) -> None:
    once, again = tiny.held_out("test", 0), tiny.held_out("test", 0)
    assert torch.equal(once, again)
    assert len(once) == tiny.setting.draws * len(tiny.shapes["test"])
    assert int(once.max()) < tiny.setting.levels
    seen = {row.numpy().tobytes() for row in tiny.training_batch(generator())["coordinates"]}
    assert not seen & {row.numpy().tobytes() for row in once}
    hashes = {ShapeModeling(CS, scale).data_hash for scale in tiny.info.scales}
    assert len(hashes) == len(tiny.info.scales)


class Previous(nn.Module):
    """Certain of the previous point's coordinate along the axis, but for a share of doubt."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels
        self.doubt = nn.Parameter(torch.tensor(0.5))

    def forward(self, streams: Tensor) -> Tensor:
        previous = contexts(streams, self.levels)[1].clamp(max=self.levels - 1)
        odds = (1 - self.doubt) * F.one_hot(previous, self.levels) + self.doubt / self.levels
        return odds.log()


def test_scores_of_a_model_that_is_known(tiny: ShapeModeling) -> None:
    levels, held = tiny.setting.levels, tiny.held_out("test", 0)
    found = tiny.evaluate(Previous(levels), "test", 0)
    assert list(found) == [metric.name for metric in tiny.info.metrics]
    same = contexts(held, levels)[1].clamp(max=levels - 1) == held
    sure, unsure = -math.log2(0.5 + 0.5 / levels), -math.log2(0.5 / levels)
    bits = torch.where(same, sure, unsure).double().unflatten(1, (-1, AXES)).mean((0, 1))
    assert found["bits_per_coordinate"] == pytest.approx(bits.mean().item(), abs=1e-5)
    assert found["bits_height"] == pytest.approx(bits[0].item(), abs=1e-5)
    assert found["bits_ground"] == pytest.approx(bits[1:].mean().item(), abs=1e-5)
    loss = tiny.loss(Previous(levels), {"coordinates": held}).item()
    assert loss / math.log(2) == pytest.approx(found["bits_per_coordinate"], abs=1e-5)


def test_references_know_axes_and_the_previous_point(tiny: ShapeModeling) -> None:
    found = tiny.references(0)
    assert list(found) == [reference.name for reference in tiny.info.references]
    assert found["previous-point"] < found["frequency"] - 0.3
    assert found["frequency"] < math.log2(tiny.setting.levels)


def test_a_run_learns_and_shows_completions(tiny: ShapeModeling) -> None:
    torch.manual_seed(0)
    slots = Slots(CS, SoftmaxAttention, SoftmaxAttention)
    model = tiny.build(slots)
    train(tiny, model, slots.candidates, 0, lambda **event: None)
    with torch.no_grad():
        scores = tiny.evaluate(model.eval(), "test", 0)
        (picture,) = tiny.artifacts(model, 0)
    assert scores["bits_per_coordinate"] < tiny.references(0)["frequency"]
    assert picture.content.startswith(b"\x89PNG")
