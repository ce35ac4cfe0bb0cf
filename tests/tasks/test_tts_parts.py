"""Parts of the speech backbones: durations, groups, positions, convolutions, text."""

from __future__ import annotations

import pytest
import torch

from tasks.backbones.positions import sinusoid
from tasks.tts.autoregressive import Postnet, sinusoid_at
from tasks.tts.corpus import Corpus, grouped
from tasks.tts.fastspeech import repeated
from tasks.tts.text import END, plain, tokens
from tasks.tts.transformer_tts import TextConvolutions
from tests.tasks.tts_cases import (
    ALIGNED,
    LONG,
    SHORT,
    fastspeech,
    transformer,
)


def test_length_regulator_repeats_tokens() -> None:
    owners, valid = repeated(torch.tensor([[2, 0, 3], [1, 1, 0]]))
    assert owners.tolist() == [[0, 0, 2, 2, 2], [0, 1, 2, 2, 2]]
    assert valid.tolist() == [[True] * 5, [True, True, False, False, False]]


def test_predicted_durations_are_whole_and_bounded() -> None:
    model = fastspeech().eval()
    mask = torch.tensor([[True, True, True, False]])
    log = torch.log1p(torch.tensor([[1.4, 0.2, 2.6, 9.0]]))
    assert model._rounded(log, mask).tolist() == [[1, 0, 3, 0]]
    assert model._rounded(torch.full((1, 4), -5.0), mask).tolist() == [[1, 0, 0, 0]]
    assert model._rounded(torch.full((1, 4), 20.0), mask).sum() == model.longest == 20


@pytest.mark.parametrize(
    ("durations", "group", "groups", "expected"),
    [
        ([3, 0, 5, 0], 1, 8, [3, 0, 5, 0]),
        ([3, 0, 5, 0], 2, 4, [1, 0, 3, 0]),
        ([3, 0, 4, 0], 4, 2, [1, 0, 1, 0]),
        ([9, 1, 0], 4, 3, [2, 1, 0]),
        ([0, 0, 0], 2, 3, [0, 0, 0]),
    ],
)
def test_groups_belong_to_the_token_in_their_middle(
    durations: list[int], group: int, groups: int, expected: list[int]
) -> None:
    assert grouped(torch.tensor(durations), group, groups).tolist() == expected


def test_positions_of_whole_places_are_the_sinusoids() -> None:
    torch.testing.assert_close(sinusoid_at(torch.arange(9.0), 8, 300.0), sinusoid(9, 8, base=300.0))


def test_text_is_counted_at_the_rate_of_the_sound() -> None:
    model = transformer(ALIGNED)
    batch = Corpus.batch([SHORT, LONG], model.group)
    places = model.text_places(batch["tokens"], batch["groups"])
    assert places[0, :6].tolist() == pytest.approx([k * 6 / 6 for k in range(6)])
    assert places[1].tolist() == pytest.approx([k * 10 / 13 for k in range(13)])


def test_convolutions_do_not_see_padding() -> None:
    for net in (Postnet(4, 2).eval(), TextConvolutions(4, 2).eval()):
        x = torch.randn(1, 6, 4)
        mask = torch.tensor([[True, True, True, False, False, False]])
        padded = x.masked_fill(~mask[..., None], 7.0)
        with torch.no_grad():
            torch.testing.assert_close(net(padded, mask)[:, :3], net(x[:, :3], mask[:, :3])[:, :3])


def test_text_becomes_plain() -> None:
    assert plain("Café — “Ünlike”  that’s\tit; $5 (ok)!") == 'cafe - "unlike" that\'s it; (ok)!'
    assert tokens("ab") == [2, 3, END]
