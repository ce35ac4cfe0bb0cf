"""Closed-form predictors of piecewise linear problems, against their definitions and theory."""

from __future__ import annotations

import pytest
import torch

from tasks.problems.piecewise_linear import Problem, draw_problem, draw_queries
from tasks.problems.piecewise_linear_predictors import (
    oracle_queries,
    oracle_stream,
    ridge_queries,
    ridge_stream,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def problem(batch: int = 64, segment: int = 32, dim: int = 8) -> Problem:
    return draw_problem(batch, 4 * segment, segment, dim, generator())


def test_the_oracle_is_exact_once_a_segment_has_shown_d_pairs() -> None:
    drawn = problem(dim=8)
    error = (oracle_stream(drawn) - drawn.y).square().mean((0, 2)).unflatten(0, (4, 32)).mean(0)
    assert error[0].item() == pytest.approx(1, abs=0.1), "nothing known: it predicts zero"
    assert (error[1:9] <= error[:8]).all()
    assert error[4].item() > 0.01
    assert error[8:].max().item() < 1e-4


@pytest.mark.parametrize(("segment", "dim"), [(8, 4), (6, 8)])
def test_the_oracle_is_minimum_norm_least_squares_on_the_segments_past(
    segment: int, dim: int
) -> None:
    drawn = problem(batch=2, segment=segment, dim=dim)
    predicted = oracle_stream(drawn)
    for position in range(1, 3 * segment):
        start = position - position % segment
        x, y = drawn.x[0, start:position].double(), drawn.y[0, start:position].double()
        expected = drawn.x[0, position].double() @ torch.linalg.pinv(x) @ y
        torch.testing.assert_close(predicted[0, position], expected, atol=1e-4, rtol=1e-4)


def test_the_oracles_error_is_the_share_of_the_input_that_its_pairs_do_not_span() -> None:
    drawn = problem(batch=500, segment=12, dim=8)
    error = (oracle_stream(drawn) - drawn.y).square().mean((0, 2))
    x = drawn.x.double()
    for t in (1, 3, 6):
        basis = torch.linalg.qr(x[:, :t].transpose(1, 2)).Q
        rest = x[:, t] - (basis @ (basis.transpose(1, 2) @ x[:, t, :, None])).squeeze(-1)
        expected = rest.square().mean().item()
        assert error[t].item() == pytest.approx(expected, rel=0.12)


def test_the_oracle_knows_every_fresh_query() -> None:
    drawn = problem(dim=8)
    inputs, targets, chosen = draw_queries(drawn, 50, generator(1))
    assert (oracle_queries(drawn, inputs, chosen) - targets).square().mean().item() < 1e-5


def test_with_fewer_pairs_than_dimensions_the_oracle_of_queries_is_the_minimum_norm_fit() -> None:
    drawn = problem(batch=2, segment=5, dim=8)
    inputs, _, chosen = draw_queries(drawn, 20, generator(1))
    predicted = oracle_queries(drawn, inputs, chosen)
    for i in range(20):
        start = 5 * int(chosen[1, i])
        x, y = drawn.x[1, start : start + 5].double(), drawn.y[1, start : start + 5].double()
        expected = inputs[1, i].double() @ torch.linalg.pinv(x) @ y
        torch.testing.assert_close(predicted[1, i], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("ridge", [0.01, 1.0])
def test_ridge_on_a_stream_is_one_regression_per_position(ridge: float) -> None:
    drawn = draw_problem(2, 300, 100, 5, generator())
    predicted = ridge_stream(drawn.x, drawn.y, ridge)
    x, y = drawn.x[1].double(), drawn.y[1].double()
    eye = torch.eye(5).double()
    for i in (0, 1, 3, 10, 127, 128, 129, 299):
        expected = x[i] @ torch.linalg.solve(x[:i].T @ x[:i] + ridge * eye, x[:i].T @ y[:i])
        torch.testing.assert_close(predicted[1, i], expected, atol=1e-9, rtol=1e-7)


def test_ridge_at_queries_is_regression_on_all_pairs() -> None:
    drawn = problem(batch=2)
    inputs, _, _ = draw_queries(drawn, 7, generator(1))
    x, y = drawn.x[1].double(), drawn.y[1].double()
    weights = torch.linalg.solve(x.T @ x + 0.5 * torch.eye(8).double(), x.T @ y)
    predicted = ridge_queries(drawn.x, drawn.y, inputs, 0.5)
    torch.testing.assert_close(predicted[1], inputs[1].double() @ weights)


def test_ridge_is_exact_in_the_first_segment_and_cannot_forget() -> None:
    drawn = problem(batch=64, segment=64, dim=16)
    error = (ridge_stream(drawn.x, drawn.y, 0.01) - drawn.y).square().mean((0, 2))
    assert error[32:64].max().item() < 1e-4
    assert error[64 + 48 : 128].mean().item() > 0.02
