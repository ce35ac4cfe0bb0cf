"""Generated scenes and a searcher that looks at their objects. Synthetic: no eye was recorded.

A scene has n objects at uniform places of the unit square, each with a colour (of 4), a shape (of
4) and a size (of 3), uniform too, but that one object alone, the target, has the colour and the
shape that are searched for.

The searcher follows guided search (Wolfe 1994) with inhibition of return (Klein 1988). The gaze
starts at the centre. From then on it stops, with probability `FOUND` on the target and `GIVE_UP`
elsewhere (never before the first fixation), or else goes to object j with probability proportional
to exp(w_j),

    w_j = 2 [colour_j = colour] + 1 [shape_j = shape] + 0.5 size_j - |p_j - g|^2 / (2 0.2^2)
          - 4 0.8^(k - 1),

with the gaze g and, if j was looked at before, the number k of fixations since (1: it is looked at
now); size_j is 0, 1 or 2. Refixations occur. After T fixations the recording ends.

Shapes: B scenes, N the most objects of a scene, T the most fixations.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

COLOURS, SHAPES, SIZES = 4, 4, 3

COLOUR_GUIDANCE, SHAPE_GUIDANCE, SALIENCE = 2.0, 1.0, 0.5
SACCADE = 0.2
"""Standard deviation of a saccade in each direction, where nothing else guides it"""
INHIBITION, FORGETTING = 4.0, 0.8
FOUND, GIVE_UP = 0.9, 0.02

POLICY = (
    COLOUR_GUIDANCE,
    SHAPE_GUIDANCE,
    SALIENCE,
    SACCADE,
    INHIBITION,
    FORGETTING,
    FOUND,
    GIVE_UP,
)

NOTHING = -1
"""In place of a fixation, after the last one"""


@dataclass(frozen=True)
class Scenes:
    """A batch of B scenes; what stands after a scene's n objects means nothing."""

    places: Tensor
    """(B, N, 2) x and y in 0..1"""
    colours: Tensor
    """(B, N) int64, likewise `shapes` and `sizes`"""
    shapes: Tensor
    sizes: Tensor
    present: Tensor
    """(B, N) bool, True for the first n"""
    target: Tensor
    """(B,) int64, the object searched for"""

    def of_target(self, feature: Tensor) -> Tensor:
        """(B, 1) the target's colour or shape."""
        return feature.gather(1, self.target[:, None])


def draw_scenes(counts: Tensor, most: int, generator: torch.Generator) -> Scenes:
    """Draw a scene of each of the (B,) ``counts`` of objects, in tables of ``most``."""
    batch, kinds = len(counts), COLOURS * SHAPES
    target = (torch.rand(batch, generator=generator) * counts).long()
    sought = torch.randint(kinds, (batch, 1), generator=generator)
    # Any kind but the one sought.
    kind = (sought + torch.randint(1, kinds, (batch, most), generator=generator)) % kinds
    kind = kind.scatter(1, target[:, None], sought)
    return Scenes(
        places=torch.rand(batch, most, 2, generator=generator),
        colours=kind // SHAPES,
        shapes=kind % SHAPES,
        sizes=torch.randint(SIZES, (batch, most), generator=generator),
        present=torch.arange(most) < counts[:, None],
        target=target,
    )


class Searcher:
    """The searcher's state over a batch of scenes, and its exact probabilities (float64)."""

    def __init__(self, scenes: Scenes) -> None:
        self._scenes = scenes
        batch, most = scenes.colours.shape
        match = COLOUR_GUIDANCE * (scenes.colours == scenes.of_target(scenes.colours)).double()
        match += SHAPE_GUIDANCE * (scenes.shapes == scenes.of_target(scenes.shapes)).double()
        guidance = match + SALIENCE * scenes.sizes
        self._guidance = guidance.masked_fill(~scenes.present, -torch.inf)
        self._gaze = torch.full((batch, 1, 2), 0.5, dtype=torch.float64)
        self._inhibition = torch.zeros(batch, most, dtype=torch.float64)
        self._stop = torch.zeros(batch, 1, dtype=torch.float64)

    def log_probabilities(self) -> Tensor:
        """(B, N + 1) of the next fixation; the last entry is to stop."""
        distance = (self._scenes.places.double() - self._gaze).square().sum(-1)
        weight = self._guidance - distance / (2 * SACCADE**2) - self._inhibition
        go = weight.log_softmax(-1) + (-self._stop).log1p()
        return torch.cat([go, self._stop.log()], dim=-1)

    def look(self, objects: Tensor) -> None:
        """Fixate (B,) objects; where it is `NOTHING` the state no longer matters."""
        chosen = objects.clamp(min=0)[:, None]
        self._gaze = self._scenes.places.double().gather(1, chosen[..., None].expand(-1, -1, 2))
        self._inhibition = (FORGETTING * self._inhibition).scatter(1, chosen, INHIBITION)
        found = chosen == self._scenes.target[:, None]
        self._stop = torch.where(found, FOUND, GIVE_UP).double()


def draw_scanpaths(scenes: Scenes, length: int, generator: torch.Generator) -> Tensor:
    """(B, T) objects looked at one after the other, `NOTHING` after the searcher has stopped."""
    searcher, most = Searcher(scenes), scenes.colours.shape[1]
    going = torch.ones(len(scenes.target), dtype=torch.bool)
    path = []
    for _ in range(length):
        probabilities = searcher.log_probabilities().exp()
        drawn = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
        going = going & (drawn < most)
        path.append(drawn.where(going, torch.tensor(NOTHING)))
        searcher.look(path[-1])
    return torch.stack(path, dim=1)


def policy_log_probabilities(scenes: Scenes, paths: Tensor) -> Tensor:
    """(B, T, N + 1) what the searcher would do next at each step of (B, T) paths."""
    searcher, steps = Searcher(scenes), []
    for objects in paths.unbind(1):
        steps.append(searcher.log_probabilities())
        searcher.look(objects)
    return torch.stack(steps, dim=1)


def choices(paths: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """What was done at each step, and whether the step was taken at all.

    Returns:
        (B, T) object, or ``most`` for the stop; (B, T) bool, False after the stop.
    """
    stopped = (paths == NOTHING).long().cumsum(1)
    return paths.masked_fill(paths == NOTHING, most), stopped <= 1
