"""The distributions of linear prompts that are learned and evaluated, and their closed forms."""

from __future__ import annotations

from dataclasses import dataclass, replace

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


@dataclass(frozen=True)
class Condition:
    """A distribution of prompts, and the one that its layer is trained on."""

    kind: str
    """Layer that answers."""
    dim: int
    """Of x."""
    length: int
    """Pairs per prompt L."""
    noise: float
    """Variance of the targets' noise sigma^2."""
    tasks: int = 1
    """Targets per input k."""
    ratio: float = 1.0
    """Largest variance of a coordinate of x by the smallest."""

    @property
    def spectrum(self) -> tuple[float, ...]:
        """Variances of the coordinates of x."""
        return geometric_spectrum(self.dim, self.ratio)

    def draw(self, count: int, queries: int, generator: torch.Generator) -> Prompts:
        """Fresh prompts."""
        return draw_prompts(
            count,
            self.length,
            queries,
            generator,
            dim=self.dim,
            noise=self.noise,
            tasks=self.tasks,
            spectrum=self.spectrum,
        )


def conditions(
    dim: int, length: int, noise: float, tasks: int, ratio: float
) -> dict[str, Condition]:
    """By the ending of their metric's name; the headline's is empty.

    Those whose kind is new are trained on, the others are shifts of the first.
    """
    usual = Condition("isotropic", dim, length, noise)
    return {
        "": usual,
        "_2x": replace(usual, length=2 * length),
        "_4x": replace(usual, length=4 * length),
        "_noisy": replace(usual, noise=4 * noise),
        "_anisotropic": replace(usual, kind="anisotropic", ratio=ratio),
        "_multi_task": replace(usual, kind="multi_task", tasks=tasks),
    }


def closed_forms(condition: Condition, trained: Condition, prompts: Prompts) -> dict[str, float]:
    """Excess risks of the predictors that have a closed form, on prompts of a condition.

    Gradient steps have the size that is best in training, and know no more than that; ``bayes``
    knows the condition. ``...-theory`` is the expected value.
    """
    dim, length, noise = trained.dim, trained.length, trained.noise
    bayes = excess_risk(posterior_mean(prompts, condition.noise), prompts)
    if condition.ratio != 1:
        steps = best_steps(trained.spectrum, length, noise)
        return {
            "gradient-step": excess_risk(gradient_step(prompts, steps), prompts),
            "gradient-step-theory": best_steps_risk(trained.spectrum, length, noise),
            "bayes": bayes,
        }
    plain, debiased = best_step(dim, length, noise), best_debiased_step(dim, length, noise)
    here = (dim, condition.length, condition.noise)
    return {
        "zero": excess_risk(torch.zeros_like(prompts.signal), prompts),
        "gradient-step": excess_risk(gradient_step(prompts, plain), prompts),
        "gradient-step-theory": gradient_step_risk(plain, *here),
        "debiased-step": excess_risk(debiased_gradient_step(prompts, debiased), prompts),
        "debiased-step-theory": debiased_step_risk(debiased, *here),
        "bayes": bayes,
    }
