"""Hidden parts: which are drawn, and that a batch holds them in its target alone."""

from __future__ import annotations

import torch

from tasks.problems.hidden import draw_hidden, filled, hide, placed
from tests.tasks.hidden_cases import generator, same, without


def test_as_many_are_hidden_in_every_row_and_every_place_as_often() -> None:
    hidden = draw_hidden(4000, 10, 3, generator())
    assert (hidden.sum(1) == 3).all()
    assert (hidden.double().mean(0) - 0.3).abs().max() < 0.03
    assert len(hidden.unique(dim=0)) == 120, "every set of three of ten"


def test_a_batch_is_a_whole_taken_apart() -> None:
    wholes = torch.arange(2 * 5 * 3).view(2, 5, 3)
    hidden = torch.tensor([[True, False, False, True, False], [False, True, True, False, False]])
    batch = hide(wholes, hidden)
    assert batch["asked_places"].tolist() == [[0, 3], [1, 2]]
    assert batch["known_places"].tolist() == [[1, 2, 4], [0, 3, 4]]
    assert torch.equal(batch["target"][0], wholes[0, [0, 3]])
    assert torch.equal(batch["known"][1], wholes[1, [0, 3, 4]])
    assert torch.equal(filled(batch, batch["target"]), wholes)
    context = placed(batch)
    assert context.query_positions is batch["asked_places"]
    assert context.key_positions is batch["known_places"]


def test_what_is_hidden_is_in_the_target_alone() -> None:
    wholes = torch.randn(3, 8, 4, generator=generator())
    hidden = draw_hidden(3, 8, 5, generator())
    other = torch.where(hidden[..., None], torch.randn(3, 8, 4, generator=generator(1)), wholes)
    one, two = hide(wholes, hidden), hide(other, hidden)
    assert same(without(one, "target"), without(two, "target"))
    assert not torch.equal(one["target"], two["target"])
