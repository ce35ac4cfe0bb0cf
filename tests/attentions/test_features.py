"""Feature maps: their values and slopes, and what random features promise of their mean."""

import math

import pytest
import torch
from torch.nn import functional as F

from attentions.shared.features import (
    elu_features,
    gaussian_directions,
    log_positive_features,
    positive_features,
    relu_features,
)
from tests.attentions.cases import draw, error, gradients


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def test_elu_features_and_their_slope():
    (x,) = draw((4, 50))
    x[0, :3] = torch.tensor([0.0, 60.0, -800.0])
    (grad,) = draw((4, 50), seed=1)
    got, (slope,) = gradients(elu_features, (x,), grad)
    want, (want_slope,) = gradients(lambda x: F.elu(x) + 1, (x,), grad)
    assert error(got, want) <= 1e-14
    assert error(slope, want_slope) <= 1e-14
    assert got.min() >= 0


@pytest.mark.parametrize("features", [elu_features, relu_features])
def test_features_of_short_dtypes_are_in_float32(features):
    (x,) = draw((3, 4), dtype=torch.bfloat16)
    assert features(x).dtype == torch.float32
    assert torch.equal(features(x), features(x.float()))
    assert features(x.double()).dtype == torch.float64


@pytest.mark.parametrize("count", [1, 5, 8, 19])
def test_directions_are_orthogonal_within_blocks(count):
    directions = gaussian_directions(count, 8, orthogonal=True)
    assert directions.shape == (count, 8)
    for block in directions.split(8):
        unit = block / block.norm(dim=1, keepdim=True)
        assert error(unit @ unit.mT, torch.eye(len(block)).double()) <= 1e-5
    # The lengths are drawn one by one.
    assert directions.norm(dim=1).unique().numel() == count


@pytest.mark.parametrize("orthogonal", [True, False])
def test_each_direction_is_a_standard_gaussian(orthogonal):
    n, dim = 12_000, 4
    x = gaussian_directions(n, dim, orthogonal).double()
    assert x.mean(0).abs().max() <= 5 / math.sqrt(n)
    assert (x.mT @ x / n - torch.eye(dim)).abs().max() <= 5 * math.sqrt(2 / n)
    # Fourth moments tell a Gaussian vector from other isotropic ones.
    assert (x.pow(4).mean(0) - 3).abs().max() <= 5 * math.sqrt(96 / n)
    assert (x.pow(4).mean() - 3).abs() <= 5 * math.sqrt(96 / n / dim)
    squares = x.square()
    assert ((squares[:, 0] * squares[:, 1]).mean() - 1).abs() <= 5 * math.sqrt(8 / n)


def estimates(x, y, count, orthogonal, draws):
    """Of exp(x·y / sqrt(D)), one for each draw of so many directions."""
    directions = torch.stack(
        [gaussian_directions(count, len(x), orthogonal) for _ in range(draws)]
    ).double()
    log_x, log_y = (
        log_positive_features(z.expand(1, draws, 1, -1), directions)[0, :, 0] for z in (x, y)
    )
    return (log_x + log_y).exp().mean(-1)


@pytest.mark.parametrize("orthogonal", [True, False])
def test_products_are_an_unbiased_estimate_of_the_exponential(orthogonal):
    x, y = (0.6 * z for z in draw((8,), (8,)))
    got = estimates(x, y, 8, orthogonal, 1500)
    want = (x @ y / 8**0.5).exp()
    assert (got.mean() - want).abs() <= 4 * got.std() / 1500**0.5
    assert got.std() / 1500**0.5 <= 0.03 * want


def test_orthogonal_directions_lower_the_variance():
    x, y = (0.6 * z for z in draw((16,), (16,)))
    variance = {o: estimates(x, y, 16, o, 1500).var() for o in (True, False)}
    assert variance[True] < 0.9 * variance[False]


def test_positive_features_differ_by_factors_that_cancel():
    q, k, directions = draw((2, 3, 7, 5), (2, 3, 9, 5), (3, 6, 5))
    fq, fk = positive_features(q, k, directions)
    of_query = log_positive_features(q, directions) - fq.log()
    of_key = log_positive_features(k, directions) - fk.log()
    # One constant for each feature of the keys, taken off the queries' but for one of each row.
    assert error(of_key, of_key[:, :, :1].expand_as(of_key)) <= 1e-13
    rest = of_query + of_key[:, :, :1]
    assert error(rest, rest[..., :1].expand_as(rest)) <= 1e-13
    assert error(fk.amax(-2), torch.ones(2, 3, 6).double()) <= 1e-15
    assert error(fq.sum(-1), torch.ones(2, 3, 7).double()) <= 1e-14


def test_positive_features_of_masked_keys_are_zero():
    q, k, directions = draw((2, 3, 7, 5), (2, 3, 9, 5), (3, 6, 5))
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, ::2] = False
    mask[1] = False
    fq, fk = positive_features(q, k, directions, mask)
    assert fk[0, :, ::2].abs().max() == 0
    assert fk[1].abs().max() == 0
    assert fq.isfinite().all()
    own = positive_features(q[:1], k[:1, :, 1::2], directions)
    assert error(fq[:1], own[0]) <= 1e-14
    assert error(fk[:1, :, 1::2], own[1]) <= 1e-14


def test_positive_features_neither_overflow_nor_lose_a_row():
    q, k, directions = draw((1, 2, 7, 16), (1, 2, 9, 16), (2, 32, 16), dtype=torch.float32)
    for size in (1e-3, 1.0, 1e2, 1e4):
        fq, fk = positive_features(size * q, size * k, directions)
        assert fq.isfinite().all()
        assert fk.isfinite().all()
        assert (fq @ fk.mT).sum(-1).min() >= 1 - 1e-5
