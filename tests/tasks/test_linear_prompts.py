"""Prompts of linear regression: their distribution, and closed forms against Monte Carlo."""

from __future__ import annotations

import pytest
import torch

from tasks.in_context_regression.linear_predictors import (
    best_debiased_step,
    best_step,
    best_steps,
    best_steps_risk,
    debiased_gradient_step,
    debiased_step_risk,
    excess_risk,
    gradient_step,
    gradient_step_risk,
    posterior_mean,
)
from tasks.in_context_regression.linear_prompts import Prompts, draw_prompts, geometric_spectrum


def draw(count: int, length: int, dim: int, noise: float, **more: object) -> Prompts:
    generator = torch.Generator().manual_seed(0)
    return draw_prompts(count, length, 4, generator, dim=dim, noise=noise, **more)  # type: ignore[arg-type]


def test_shapes() -> None:
    prompts = draw(3, 7, 5, 0.1, tasks=2)
    assert prompts.x.shape == (3, 7, 5)
    assert prompts.y.shape == (3, 7, 2)
    assert prompts.queries.shape == (3, 4, 5)
    assert prompts.signal.shape == (3, 4, 2)


def test_moments() -> None:
    spectrum = geometric_spectrum(5, 16)
    assert sum(spectrum) == pytest.approx(5)
    assert spectrum[0] == pytest.approx(16 * spectrum[-1])
    prompts = draw(4000, 20, 5, 0.3, tasks=2, spectrum=spectrum)
    variances = prompts.x.square().mean((0, 1))
    torch.testing.assert_close(variances, torch.tensor(spectrum), rtol=0.03, atol=0)
    assert prompts.signal.square().mean().item() == pytest.approx(1, abs=0.05)
    assert prompts.y.square().mean().item() == pytest.approx(1.3, abs=0.05)
    assert geometric_spectrum(3, 1.0) == pytest.approx((1, 1, 1))


def test_without_noise_one_map_gives_targets_of_pairs_and_queries() -> None:
    prompts = draw(2, 12, 5, 0.0, tasks=3)
    beta = torch.linalg.lstsq(prompts.x, prompts.y).solution
    torch.testing.assert_close(prompts.queries @ beta, prompts.signal, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("dim", "length", "noise", "risks", "theory"),
    [
        (5, 40, 0.1, (0.1419, 0.1447, 0.0146), (0.1398, 0.1429)),
        (8, 16, 0.25, (0.4064, 0.4226, 0.1854), (0.4074, 0.4231)),
    ],
)
def test_risks_of_the_best_steps_and_of_the_posterior_mean(
    dim: int,
    length: int,
    noise: float,
    risks: tuple[float, float, float],
    theory: tuple[float, float],
) -> None:
    """Expected values, and those of another simulation."""
    prompts = draw(20_000, length, dim, noise)
    plain, debiased = best_step(dim, length, noise), best_debiased_step(dim, length, noise)
    expected = (
        gradient_step_risk(plain, dim, length, noise),
        debiased_step_risk(debiased, dim, length, noise),
    )
    assert expected == pytest.approx(theory, abs=5e-5)
    assert expected == pytest.approx((1 - plain, 1 - (1 - 1 / length) * debiased))
    measured = (
        excess_risk(gradient_step(prompts, plain), prompts),
        excess_risk(debiased_gradient_step(prompts, debiased), prompts),
        excess_risk(posterior_mean(prompts, noise), prompts),
    )
    assert measured == pytest.approx(risks, rel=0.03)
    assert measured[:2] == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("length", [20, 80])
@pytest.mark.parametrize("step", [0.5, 1.1])
def test_expected_risks_hold_for_any_step_and_length(length: int, step: float) -> None:
    prompts = draw(10_000, length, 5, 0.4)
    plain = excess_risk(gradient_step(prompts, step), prompts)
    assert plain == pytest.approx(gradient_step_risk(step, 5, length, 0.4), rel=0.04)
    debiased = excess_risk(debiased_gradient_step(prompts, step), prompts)
    assert debiased == pytest.approx(debiased_step_risk(step, 5, length, 0.4), rel=0.04)


def test_the_best_steps_of_anisotropic_inputs() -> None:
    spectrum = geometric_spectrum(5, 16)
    prompts = draw(20_000, 40, 5, 0.1, spectrum=spectrum)
    steps = best_steps(spectrum, 40, 0.1)
    risk = excess_risk(gradient_step(prompts, steps), prompts)
    assert risk == pytest.approx(best_steps_risk(spectrum, 40, 0.1), rel=0.03)
    for factor in (0.8, 1.25):
        other = gradient_step(prompts, [factor * step for step in steps])
        assert excess_risk(other, prompts) > risk
    flat = geometric_spectrum(5, 1)
    assert best_steps(flat, 40, 0.1) == pytest.approx([best_step(5, 40, 0.1)] * 5)
    assert best_steps_risk(flat, 40, 0.1) == pytest.approx(1 - best_step(5, 40, 0.1))


def test_the_ridge_of_the_posterior_mean_is_the_best() -> None:
    prompts = draw(4000, 10, 5, 0.5)
    best = excess_risk(posterior_mean(prompts, 0.5), prompts)
    for factor in (0.5, 2.0):
        assert excess_risk(posterior_mean(prompts, factor * 0.5), prompts) > best
