"""Interpolation without parameters, float64: what the scores are read against.

Each takes a batch of `positions.ask` and gives the (B, M, 3) colours asked for.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cab import Batch
from tasks.upsampling.positions import pixel_centres

NEIGHBOURS = 4


def inverse_distance(batch: Batch, neighbours: int = NEIGHBOURS) -> Tensor:
    """Mean of the k nearest pixels with weights 1 / (d + 1e-8), as SymPoint (Liu et al. 2024)
    brings mask logits from coarse to fine points.
    """
    pixels = batch["pixels"].double()
    low = _side(pixels)
    distance = torch.cdist(batch["positions"].double(), pixel_centres(low, low).double())
    nearest = distance.topk(neighbours, largest=False)
    weight = 1 / (nearest.values + 1e-8)
    weight = weight / weight.sum(-1, keepdim=True)
    row = torch.arange(len(pixels))[:, None, None]
    return (weight[..., None] * pixels[row, nearest.indices]).sum(-2)


def bilinear(batch: Batch) -> Tensor:
    """From the four pixels around; beyond the outer centres the border goes on."""
    return _sampled(batch, "bilinear")


def bicubic(batch: Batch) -> Tensor:
    """From the sixteen pixels around (Keys' kernel, a = -0.75), cut to 0..1."""
    return _sampled(batch, "bicubic").clamp(0, 1)


def _sampled(batch: Batch, mode: str) -> Tensor:
    pixels = batch["pixels"].double()
    low = _side(pixels)
    picture = pixels.transpose(1, 2).unflatten(2, (low, low))
    # Torch takes (x, y), -1 and 1 being the outer edges.
    grid = batch["positions"].double().flip(-1)[:, None] * (2 / low) - 1
    out = F.grid_sample(picture, grid, mode=mode, padding_mode="border", align_corners=False)
    return out[:, :, 0].transpose(1, 2)


def _side(pixels: Tensor) -> int:
    return round(pixels.shape[1] ** 0.5)
