"""Segment means: the rule, by hand, and the three forms of it."""

import pytest
import torch

from attentions.shared.averaging import segment_averaging
from attentions.shared.segments import Segments
from tests.attentions.cases import draw, error, gradients


def cut(tokens, segments):
    """The segments up to the last of a list of positions: the first ones floor(n / m) long, the
    others one longer; and of each the positions in the list.
    """
    size, longer = divmod(max(tokens, default=-1) + 1, segments)
    lengths = [size] * (segments - longer) + [size + 1] * longer
    starts = [sum(lengths[:i]) for i in range(segments)]
    parts = [range(s, s + n) for s, n in zip(starts, lengths, strict=True)]
    return [[i for i in part if i in tokens] for part in parts]


@pytest.mark.parametrize("segments", [1, 2, 5, 16])
@pytest.mark.parametrize("length", [1, 4, 5, 6, 19, 32])
def test_matrix_is_the_rule(length, segments):
    generator = torch.Generator().manual_seed(length)
    mask = torch.rand(6, length, generator=generator) > 0.4
    mask[0], mask[1] = True, False
    matrix, sizes = segment_averaging(mask, segments, torch.float64)
    r = min(segments, length)
    assert matrix.shape == (6, 1, r, length)
    for row in range(6):
        parts = cut(mask[row].nonzero().flatten().tolist(), r)
        assert sizes[row, 0].tolist() == [len(part) for part in parts]
        for c, part in enumerate(parts):
            want = torch.zeros(length).double()
            want[part] = 1.0 / max(len(part), 1)
            assert torch.equal(matrix[row, 0, c], want)


@pytest.mark.parametrize("length", [1, 4, 5, 6, 19, 32])
def test_forms_without_and_with_a_mask_agree(length):
    x, gradient = draw((2, 3, length, 4), (2, 3, min(5, length), 4))
    views = Segments(length, 5)
    masked = Segments(length, 5, torch.ones(2, length, dtype=torch.bool), x.dtype)
    assert views.matrix is None
    want, (want_gradient,) = gradients(views.means, [x], gradient)
    assert error(masked.means(x), want) <= 1e-15
    (start,) = draw(x.shape, seed=1)
    for segments in (views, masked):
        got = segments.add_gradient_(start.clone(), gradient)
        assert error(got, start + want_gradient) <= 1e-15


def test_masked_tokens_are_not_there():
    (x,) = draw((3, 2, 12, 4))
    mask = torch.zeros(3, 12, dtype=torch.bool)
    mask[0, [0, 2, 3, 5, 7, 8, 9]] = True  # of 10 positions, 2 + 2 + 3 + 3
    mask[1, [1, 3]] = True  # of 4 positions
    segments = Segments(12, 4, mask, x.dtype)
    huge = x.masked_fill(~mask[:, None, :, None], 1e30)
    means = segments.means(huge)
    for c, members in enumerate([[0], [2, 3], [5], [7, 8, 9]]):
        assert error(means[0, :, c], x[0][:, members].mean(-2)) <= 1e-15
    assert torch.equal(means[1, :, [1, 3]], x[1][:, [1, 3]])
    assert means[1, :, [0, 2]].abs().max() == 0
    assert means[2].abs().max() == 0
    assert segments.filled[:, 0].tolist() == [[True] * 4, [False, True] * 2, [False] * 4]
    assert segments.single[:, 0, 0].tolist() == [False, True, True]
    assert segments.empty[:, 0, 0].tolist() == [False, False, True]
    assert segments.may_be_single()
    assert not Segments(12, 4, mask[:1]).may_be_single()
    hidden = segments.hide_empty_(torch.zeros(3, 2, 12, 4)).isinf()
    assert hidden[:, 0, 0].tolist() == [[False] * 4, [True, False] * 2, [False] * 4]
