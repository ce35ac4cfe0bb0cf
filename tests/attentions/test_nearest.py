"""Neighbours on an axis, and the sums of their values."""

import pytest
import torch

from attentions.shared.gathered import gathered, gathered_sums
from attentions.shared.nearest import latest, nearest, nearest_mask
from tests.attentions.cases import draw, error, gradients


def chosen(near, length):
    """(rows, Lq, Lk) bool, how often each key was chosen."""
    counts = torch.zeros(*near.keys.shape[:2], length, dtype=torch.long)
    return counts.scatter_add(-1, near.keys, near.present.long())


def axis(length, seed, whole=False):
    generator = torch.Generator().manual_seed(seed)
    times = 10 * torch.rand(2, length, generator=generator, dtype=torch.float64)
    return times.round() if whole else times


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("count", [1, 3, 8, 30])
@pytest.mark.parametrize("masked", [False, True])
def test_are_those_of_all_pairs(count, masked, whole):
    """Times in any order, with many that are equal, and equally far."""
    query, key = axis(17, 1, whole), axis(23, 2, whole)
    mask = torch.rand(2, 23, generator=torch.Generator().manual_seed(3)) > 0.4
    mask[1, 2:] = False
    mask = mask if masked else None
    near = nearest(query, key, mask, count)
    want = nearest_mask(query, key, mask, count)
    assert torch.equal(chosen(near, 23), want.long())
    valid = 23 if mask is None else mask.sum(-1)[:, None]
    assert torch.equal(near.present.sum(-1), torch.as_tensor(valid).clamp(max=count).expand(2, 17))
    at = key.gather(1, near.keys.flatten(1)).view_as(near.keys)
    assert torch.equal(near.offset, (at - query[..., None]).masked_fill(~near.present, 0.0))
    assert (near.offset.abs().masked_fill(~near.present, 99).diff(dim=-1) >= 0).all()
    farthest = near.offset.abs().amax(-1)
    distance = (key[:, None] - query[..., None]).abs()
    outside = ~want if mask is None else ~want & mask[:, None]
    assert (distance.masked_fill(~outside, 99).amin(-1) >= farthest)[near.present.any(-1)].all()


def test_equally_far_below_and_above_in_turns():
    near = nearest(torch.tensor([[5.0]]), torch.arange(11.0)[None], None, 4)
    assert near.keys.tolist() == [[[5, 4, 6, 3]]]


@pytest.mark.parametrize("length_q", [1, 5, 12])
def test_latest_are_the_last_valid_ones(length_q):
    mask = torch.rand(2, 12, generator=torch.Generator().manual_seed(1)) > 0.4
    times = axis(12, 2)
    near = latest(length_q, times, mask, 3)
    for row in range(2):
        for i in range(length_q):
            own = i + 12 - length_q
            want = mask[row, : own + 1].nonzero()[:, 0].flip(0)[:3]
            got = near.keys[row, i][near.present[row, i]]
            assert torch.equal(got, want)
            want_offset = times[row, want] - times[row, own]
            assert torch.equal(near.offset[row, i][near.present[row, i]], want_offset)


@pytest.mark.parametrize("rows", [1, 2])
def test_sums_of_what_is_gathered(rows):
    values, weights, (grad,) = *draw((2, 3, 9, 4), (2, 3, 7, 5)), draw((2, 3, 7, 4), seed=1)
    index = torch.randint(0, 9, (rows, 7, 5), generator=torch.Generator().manual_seed(1))

    def plainly(values, weights):
        wide = index.expand(2, -1, -1)[:, None, :, :, None].expand(2, 3, 7, 5, 4)
        near = values[:, :, None].expand(-1, -1, 7, -1, -1).gather(3, wide)
        assert torch.equal(gathered(values, index), near)
        return (weights[..., None] * near).sum(-2)

    got, found = gradients(lambda *x: gathered_sums(*x, index), (values, weights), grad)
    want, wanted = gradients(plainly, (values, weights), grad)
    assert error(got, want) <= 1e-14
    for x, y in zip(found, wanted, strict=True):
        assert error(x, y) <= 1e-14


def test_no_keys():
    near = nearest(torch.zeros(1, 3), torch.zeros(2, 0), None, 4)
    assert near.keys.shape == (2, 3, 0)
