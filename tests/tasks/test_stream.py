"""The backbone of streams: its start, its causality, and draws from it."""

from __future__ import annotations

import pytest
import torch

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from cab import Attention, Pattern, Slots
from tasks.backbones.stream import LevelStream, Stream
from tasks.backbones.transformer import SelfAttentionLayer

LEVELS, LENGTH, DIM = 5, 12, 16


def slots(attention: type[Attention] = SoftmaxAttention) -> Slots:
    return Slots(Pattern.CAUSAL_SELF, attention, SoftmaxAttention)


def model_of(attention: type[Attention] = SoftmaxAttention) -> LevelStream:
    torch.manual_seed(0)
    places = torch.randn(LENGTH, DIM)
    return LevelStream(
        slots(attention), places, levels=LEVELS, heads=2, layers=2, sharpness=1.5
    ).eval()


def draw(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(LEVELS, (rows, LENGTH), generator=torch.Generator().manual_seed(seed))


def test_attention_starts_as_a_look_up_by_likeness() -> None:
    stack = Stream(slots(), dim=DIM, heads=2, layers=2, length=8, outputs=3, sharpness=2.0)
    for layer in stack.layers:
        assert isinstance(layer, SelfAttentionLayer)
        query, key = layer.attention.query.weight, layer.attention.key.weight
        assert torch.equal(query, key)
        torch.testing.assert_close(query @ query.T, 4 * torch.eye(DIM), atol=1e-5, rtol=0)
        assert torch.equal(layer.attention.value.weight, torch.eye(DIM))
        assert torch.equal(layer.attention.output.weight, torch.eye(DIM))


@pytest.mark.parametrize("attention", [SoftmaxAttention, NoAttention])
def test_a_level_is_predicted_from_those_before_it(attention: type[Attention]) -> None:
    """Not from itself nor from what follows, and with attention from all the others."""
    model, stream = model_of(attention), draw(3)
    with torch.no_grad():
        whole = model(stream)
        torch.testing.assert_close(model(stream[:, :7]), whole[:, :7])
        for place in range(LENGTH):
            changed = stream.clone()
            changed[:, place] = (changed[:, place] + 1) % LEVELS
            moved = (model(changed) != whole).any(-1).any(0)
            assert not moved[: place + 1].any()
            if attention is SoftmaxAttention:
                assert moved[place + 1 :].all()
            else:
                assert moved.nonzero().flatten().tolist() == [place + 1][: LENGTH - 1 - place]


def test_draws_follow_the_model_and_the_generator() -> None:
    """A model that is certain of the level which follows upwards, whatever came before that."""

    class Upwards(LevelStream):
        def forward(self, stream: torch.Tensor) -> torch.Tensor:
            before = torch.nn.functional.pad(stream[:, :-1], (1, 0))
            return 100 * torch.nn.functional.one_hot((before + 1) % LEVELS, LEVELS).float()

    certain = Upwards(slots(), torch.zeros(LENGTH, DIM), levels=LEVELS, heads=2, layers=1,
                      sharpness=1.0)  # fmt: skip
    stream = draw(4)
    drawn = certain.completed(stream, 5, torch.Generator())
    assert torch.equal(drawn[:, :5], stream[:, :5])
    assert torch.equal(drawn[:, 5:], (stream[:, 4:5] + torch.arange(1, LENGTH - 4)) % LEVELS)
    model = model_of()
    one, again, other = (
        model.completed(stream, 5, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
