"""Pairs of point clouds that show the same shape, up to quarter turns and mirror images.

Two independent samples of one surface have a Chamfer distance that is due to sampling alone. A
pair of shapes is compared by the ratio of its own distance to that noise: a ratio near one means
that the samples could be of the same surface.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Floats = NDArray[np.float64]

# Quarter turns about the vertical (second) axis, each with and without its mirror image.
POSES: tuple[Floats, ...] = tuple(
    np.array([[c * mirror, 0.0, s], [0.0, 1.0, 0.0], [-s * mirror, 0.0, c]])
    for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))
    for mirror in (1, -1)
)

# Only shapes whose descriptors are closer than this (root mean square) are compared; the pairs of
# Sweet Home 3D's furniture below a ratio of 1.5 lie within 0.037.
_DESCRIPTOR_GAP = 0.045
_QUANTILES = 32
_PROBES = 1000


def similar_pairs(
    samples: Sequence[Floats], second_samples: Sequence[Floats], ratio: float
) -> list[tuple[float, int, int]]:
    """Pairs of shapes whose Chamfer distance is below ``ratio`` times the noise of sampling.

    Args:
        samples: (N, 3) points per shape, uniform on its surface, centred and of unit size.
        second_samples: the same shapes, sampled again.
        ratio: 1.5 finds copies and versions with other details, 1.1 copies only.

    Returns:
        (ratio, first, second) with first < second, the most similar pair first.
    """
    trees = [cKDTree(points) for points in samples]
    noise = [
        float(tree.query(points)[0].mean())
        for tree, points in zip(trees, second_samples, strict=True)
    ]
    descriptors = np.stack([descriptor(points) for points in samples])
    close = cKDTree(descriptors).query_pairs(_DESCRIPTOR_GAP * descriptors.shape[1] ** 0.5)
    pairs = []
    for first, second in sorted(close):
        limit = ratio * max(noise[first], noise[second])
        probes = samples[second][:_PROBES]
        gaps = [trees[first].query(probes @ pose)[0].mean() for pose in POSES]
        # The distance is the mean of two; one that is above twice the limit settles it.
        if min(gaps) > 2 * limit:
            continue
        pose = POSES[int(np.argmin(gaps))]
        # A turn is orthogonal: turning the first shape back measures the other direction.
        there = trees[first].query(samples[second] @ pose)[0].mean()
        back = trees[second].query(samples[first] @ pose.T)[0].mean()
        distance = float(there + back) / 2
        if distance < limit:
            pairs.append((ratio * distance / limit, first, second))
    return sorted(pairs)


def descriptor(points: Floats) -> Floats:
    """(3 * 32,) quantiles of the distance to the centre, to the vertical axis, and of height."""
    levels = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    around = np.linalg.norm(points[:, [0, 2]], axis=1)
    measures = (np.linalg.norm(points, axis=1), around, points[:, 1])
    return np.concatenate([np.quantile(values, levels) for values in measures])


def connected(pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """The connected components of a graph that have more than one member, each sorted."""
    component: dict[int, set[int]] = {}
    for first, second in pairs:
        joined = component.get(first, {first}) | component.get(second, {second})
        component.update(dict.fromkeys(joined, joined))
    return sorted({id(members): sorted(members) for members in component.values()}.values())
