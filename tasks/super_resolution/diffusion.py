"""Gaussian diffusion with a continuous noise level (SR3; Chen et al. 2021), and its sampling.

With betas b_1..b_T and g_t = (1 - b_1) ... (1 - b_t), the noisy picture at time t is
sqrt(g_t) y + sqrt(1 - g_t) noise. The network is told the level sqrt(g_t), not t.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Bounds:
    """What a clean picture can be, per pixel; (B, 3, S, S) each."""

    lowest: Tensor
    highest: Tensor


class Diffusion:
    """A linear schedule of betas.

    Args:
        times: T.
        first: b_1.
        last: b_T.
    """

    def __init__(self, times: int = 2000, first: float = 1e-6, last: float = 1e-2) -> None:
        betas = torch.linspace(first, last, times, dtype=torch.float64)
        gammas = torch.cat([torch.ones(1, dtype=torch.float64), (1 - betas).cumprod(0)])
        self.times = times
        self.levels = gammas.sqrt()
        """(T + 1,) float64, from 1 at time 0"""

    def draw_levels(self, count: int, generator: torch.Generator) -> Tensor:
        """(count,) uniform between the levels of two neighbouring times, drawn uniformly."""
        time = torch.randint(1, self.times + 1, (count,), generator=generator)
        share = torch.rand(count, generator=generator, dtype=torch.float64)
        return torch.lerp(self.levels[time - 1], self.levels[time], share).float()

    @staticmethod
    def mixed(clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """The noisy picture (B, 3, S, S) at levels (B,)."""
        level = level[:, None, None, None]
        return level * clean + _spread(level) * noise

    @staticmethod
    def velocity(clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
        """(B, 3, S, S) level * noise - sqrt(1 - level^2) * clean, at levels (B,)."""
        level = level[:, None, None, None]
        return level * noise - _spread(level) * clean

    @staticmethod
    def noise_of_velocity(noisy: Tensor, velocity: Tensor, level: Tensor) -> Tensor:
        """The noise in the noisy picture (B, 3, S, S) that has this velocity."""
        level = level[:, None, None, None]
        return level * velocity + _spread(level) * noisy

    def sample(
        self,
        predict_noise: Callable[[Tensor, Tensor], Tensor],
        bounds: Bounds,
        generator: torch.Generator,
        *,
        steps: int,
        stochastic: bool,
    ) -> Tensor:
        """A clean picture from noise (DDIM, Song et al. 2021, eq. 12), in evenly spaced times.

        ``stochastic`` with ``steps`` = T is the ancestral sampling of DDPM, with the posterior's
        variance; without it the picture is a function of the first noise.

        Args:
            predict_noise: of the noisy picture and its level (B,).
            bounds: the clean picture is cut to them in every step.
            generator: on the CPU, source of all noise.
            steps: evaluations of the network, at most T.
            stochastic: whether noise is added in every step.
        """
        like = bounds.lowest

        def noise() -> Tensor:
            return torch.randn(like.shape, generator=generator).to(like.device)

        times = torch.linspace(self.times, 0, steps + 1, dtype=torch.float64).round().long()
        noisy = noise()
        for now, following in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
            level, target = self.levels[now].item(), self.levels[following].item()
            spread, wanted = (1 - level**2) ** 0.5, (1 - target**2) ** 0.5
            levels = torch.full((len(noisy),), level, device=like.device)
            predicted = predict_noise(noisy, levels).float()
            clean = (noisy - spread * predicted) / level
            clean = torch.minimum(torch.maximum(clean, bounds.lowest), bounds.highest)
            left = (noisy - level * clean) / spread
            fresh = wanted / spread * (1 - (level / target) ** 2) ** 0.5 if stochastic else 0.0
            noisy = target * clean + max(0.0, wanted**2 - fresh**2) ** 0.5 * left
            if fresh:
                noisy = noisy + fresh * noise()
        return noisy


def _spread(level: Tensor) -> Tensor:
    return (1 - level.square()).sqrt()
