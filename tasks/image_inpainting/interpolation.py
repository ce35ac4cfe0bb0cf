"""Inpainting without training, float64: what the scores are read against.

Each takes a batch of `tasks.problems.hidden.hide` over patches and gives the (B, M, C) hidden ones.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor
from torch.nn import functional as F

from cab import Batch
from tasks.image_inpainting.model import CHANNELS, mean_patch
from tasks.problems.hidden import filled, taken
from tasks.upsampling.positions import pixel_centres

NEIGHBOURS = 4


def visible_mean(batch: Batch) -> Tensor:
    """The mean colour of all visible pixels: the best that can be said without looking further."""
    mean = mean_patch(batch["known"].double())
    return mean.expand(-1, batch["asked_places"].shape[1], -1)


def inverse_distance(batch: Batch) -> Tensor:
    """The mean colours of the four nearest visible patches, with weights 1 / d."""
    known = batch["known"].double().unflatten(2, (CHANNELS, -1))
    colours = known.mean(3)
    grid = _side(batch)
    centres = pixel_centres(grid, grid).double()
    distance = torch.cdist(centres[batch["asked_places"]], centres[batch["known_places"]])
    nearest = distance.topk(NEIGHBOURS, largest=False)
    weight = 1 / nearest.values
    weight = weight / weight.sum(-1, keepdim=True)
    around = taken(colours, nearest.indices.flatten(1)).unflatten(1, nearest.indices.shape[1:])
    mixed = (weight[..., None] * around).sum(2)
    return mixed[..., None].expand(-1, -1, -1, known.shape[3]).flatten(2)


def harmonic(batch: Batch) -> Tensor:
    """Pixels that are the mean of their neighbours: Laplace's equation inside the holes, as heat
    would spread from the visible pixels (the linear case of inpainting by diffusion).
    """
    grid = _side(batch)
    patch = round((batch["known"].shape[2] / CHANNELS) ** 0.5)
    asked = batch["asked_places"]
    blank = batch["known"].new_zeros(*asked.shape, batch["known"].shape[2])
    pictures = F.pixel_shuffle(_planes(filled(batch, blank).double(), grid), patch)
    hidden = torch.zeros(len(asked), grid**2, dtype=torch.bool).scatter_(1, asked, True)
    holes = hidden.view(-1, grid, grid).repeat_interleave(patch, 1).repeat_interleave(patch, 2)
    laplacian = _laplacian(grid * patch)
    for picture, hole in zip(pictures, holes, strict=True):
        inside = hole.flatten().numpy()
        rows = laplacian[inside]
        colours = picture.flatten(1).T.numpy()
        border = -(rows[:, ~inside] @ colours[~inside])
        solved = scipy.sparse.linalg.spsolve(rows[:, inside].tocsc(), border)
        picture.flatten(1)[:, hole.flatten()] = torch.from_numpy(solved.T)
    return taken(F.pixel_unshuffle(pictures, patch).flatten(2).transpose(1, 2), asked)


def _laplacian(side: int) -> scipy.sparse.csr_matrix:
    """(side^2, side^2) of a grid of pixels, each joined to the four around that there are."""
    chain = scipy.sparse.diags([np.ones(side - 1)] * 2, [-1, 1])
    one = scipy.sparse.identity(side)
    joined = scipy.sparse.kron(chain, one) + scipy.sparse.kron(one, chain)
    degree = scipy.sparse.diags(np.asarray(joined.sum(1)).ravel())
    return (degree - joined).tocsr()


def _planes(patches: Tensor, grid: int) -> Tensor:
    """(B, P, C) patches as (B, C, grid, grid)."""
    return patches.transpose(1, 2).unflatten(2, (grid, grid))


def _side(batch: Batch) -> int:
    return round((batch["known_places"].shape[1] + batch["asked_places"].shape[1]) ** 0.5)
