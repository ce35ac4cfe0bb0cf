"""Closed-form predictors of linear prompts, and what they are expected to score.

With x isotropic and E |beta|^2 = 1, the excess risk of one step of gradient descent from zero,

    (eta / L) sum_l y_l x_l · x_q,    is  1 - 2 eta + eta^2 (1 + (d + 1 + d sigma^2) / L),

least at eta = L / (L + d + 1 + d sigma^2), where it is 1 - eta. Debiased, with x_l - mean(x) for
x_l, it is 1 - 2 a eta + b eta^2 with a = (L - 1) / L and b = a (L + d + d sigma^2) / L, least at
eta = L / (L + d + d sigma^2). For inputs of mean zero debiasing therefore costs a little; it
matters because heads of softmax attention can express it (a positive and a negative one), and not
the plain step (He et al. 2025, arXiv 2503.12734). For anisotropic x, a step may have another size
along each eigenvector, lambda_i being its variance: the best is

    gamma_i = 1 / (lambda_i (1 + 1 / L) + (tr Lambda + d sigma^2) / L)

with risk mean_i lambda_i (1 - gamma_i lambda_i). Nothing beats the posterior mean, which is ridge
regression with ridge d sigma^2.

All predictors give (P, M, k) in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tasks.in_context_regression.linear_prompts import Prompts
from tasks.problems.piecewise_linear_predictors import ridge_queries


def gradient_step(prompts: Prompts, step: float | Sequence[float]) -> Tensor:
    """One step of gradient descent from zero; ``step`` may differ by coordinate of x."""
    x, y = prompts.x.double(), prompts.y.double()
    slope = x.transpose(1, 2) @ y / x.shape[1]
    scaled = prompts.queries.double() * torch.tensor(step, dtype=torch.float64)
    return scaled @ slope


def debiased_gradient_step(prompts: Prompts, step: float) -> Tensor:
    """The same with the inputs of the prompt centred."""
    x, y = prompts.x.double(), prompts.y.double()
    slope = (x - x.mean(1, keepdim=True)).transpose(1, 2) @ y / x.shape[1]
    return step * prompts.queries.double() @ slope


def posterior_mean(prompts: Prompts, noise: float) -> Tensor:
    """Ridge regression with the ridge d sigma^2: the Bayes predictor."""
    ridge = prompts.x.shape[-1] * noise
    return ridge_queries(prompts.x, prompts.y, prompts.queries, ridge)


def excess_risk(predicted: Tensor, prompts: Prompts) -> float:
    """Mean squared error to the targets without noise."""
    return (predicted.double() - prompts.signal.double()).square().mean().item()


def best_step(dim: int, length: int, noise: float) -> float:
    """The eta of least risk of a gradient step."""
    return length / (length + dim + 1 + dim * noise)


def best_debiased_step(dim: int, length: int, noise: float) -> float:
    """The eta of least risk of a debiased gradient step."""
    return length / (length + dim + dim * noise)


def best_steps(spectrum: Sequence[float], length: int, noise: float) -> tuple[float, ...]:
    """The gamma_i of least risk, by coordinate."""
    rest = (sum(spectrum) + len(spectrum) * noise) / length
    return tuple(1 / (value * (1 + 1 / length) + rest) for value in spectrum)


def gradient_step_risk(step: float, dim: int, length: int, noise: float) -> float:
    """Expected excess risk of `gradient_step`, x isotropic."""
    return 1 - 2 * step + step**2 * (1 + (dim + 1 + dim * noise) / length)


def debiased_step_risk(step: float, dim: int, length: int, noise: float) -> float:
    """Expected excess risk of `debiased_gradient_step`, x isotropic."""
    share = (length - 1) / length
    return 1 - 2 * share * step + share * step**2 * (length + dim + dim * noise) / length


def best_steps_risk(spectrum: Sequence[float], length: int, noise: float) -> float:
    """Expected excess risk of a step with `best_steps`."""
    steps = best_steps(spectrum, length, noise)
    return sum(v * (1 - g * v) for v, g in zip(spectrum, steps, strict=True)) / len(spectrum)
