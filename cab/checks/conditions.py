"""The conditions that a mechanism is checked under: a few that are fixed, and as many as wanted
that are drawn from a seeded space, so that nothing can be tuned to a list.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, fields, replace

import torch

from cab.patterns import Pattern

_CUBIC = 2.5e8
"""Bound of B H Lq Lk D^2: what an exact local regression does in about half a second"""
_SQUARE = 5e6
"""Bound of B H Lq Lk: the scores that a reference writes out"""
_SHORT_TYPES = 4
"""Factor between the costs of short floating point types and of others"""

_HEAD_DIMS = (1, 2, 3, 4, 5, 8, 8, 12, 16, 16, 24, 32, 48, 64, 64, 80, 96, 128)
_HEADS = (1, 2, 2, 3, 4, 4, 5, 6, 8, 12)
_BATCHES = (1, 2, 2, 3, 4, 5, 6, 8, 9, 12)
_SCALES = (1e-2, 0.1, 0.5, 1.0, 1.0, 1.0, 1.0, 3.0, 8.0)
_DTYPES = (torch.float64, torch.float32, torch.float32, torch.bfloat16, torch.float16)
_GRAD_MODES = ("grad", "no_grad", "inference")
_BLOCKS = (8, 16, 32, 64, 128, 256, 512, 1024)
_COMMON_BLOCK = 32


@dataclass(frozen=True)
class Condition:
    """Sizes, dtype, mode and kind of inputs of one call. The defaults are the small case, whose
    lengths are no multiples of any block size.
    """

    dtype: torch.dtype = torch.float64
    """Of the inputs; parameters are float64 with it, else float32."""
    batch: int = 3
    heads: int = 2
    head_dim: int = 8
    value_dim: int = 6
    length_q: int = 21
    length_k: int = 34
    training: bool = False
    autocast: bool = False
    """Called under torch's automatic mixed precision, in bfloat16."""
    grad: str = "grad"
    """``grad``, ``no_grad`` or ``inference``: the mode of autograd around a call"""
    layer_index: int = 0
    layers: int = 1
    max_length: int = 64
    mask: str = ""
    """Of the keys, kinds by row of the batch: ``suffix``, ``prefix``, ``holes``, ``all`` True,
    ``empty``; ``mixed`` takes another for each row."""
    query_mask: bool = False
    """In cross attention: some queries are padding."""
    given: str = "inputs"
    """The context: ``none``, ``bare`` (masks alone), ``inputs``, ``positions``, ``times``,
    ``all``."""
    scale: float = 1.0
    offset: float = 0.0
    strided: bool = False
    """Inputs are (B, L, H, D) in memory, as a projection leaves them."""
    embed_dim: int = 0
    """0: heads * head_dim"""
    first_position: int = 0
    """Of the positions, where they are given."""
    seed: int = 0

    def seeded(self, seed: int) -> Condition:
        """With another seed."""
        return replace(self, seed=seed)

    @property
    def parameter_dtype(self) -> torch.dtype:
        """Float64 for exact comparisons, else float32 as in a training run."""
        return torch.float64 if self.dtype is torch.float64 else torch.float32

    @property
    def rounding(self) -> float:
        """Relative rounding of the dtype that results are good to."""
        return torch.finfo(torch.bfloat16 if self.autocast else self.dtype).eps

    @property
    def width(self) -> int:
        """Of the layer inputs."""
        return self.embed_dim or self.heads * self.head_dim

    def __str__(self) -> str:
        """What differs from the small case, short."""
        shape = (
            f"{str(self.dtype).removeprefix('torch.')}, B={self.batch} H={self.heads} "
            f"D={self.head_dim} Dv={self.value_dim} Lq={self.length_q} Lk={self.length_k}, "
            f"{'train' if self.training else 'eval'}"
        )
        plain = Condition()
        others = [
            f"{f.name}={getattr(self, f.name)}"
            for f in fields(self)[8:]
            if getattr(self, f.name) != getattr(plain, f.name)
        ]
        return ", ".join([shape, *others])


def at_most(condition: Condition, cubic: float = _CUBIC, square: float = _SQUARE) -> Condition:
    """The condition with fewer batch rows, heads and dimensions where a call would take long."""
    c = condition
    pairs = c.length_q * c.length_k
    if c.dtype.itemsize == 2:  # slow on a CPU
        square /= _SHORT_TYPES
    while c.batch * c.heads * pairs > square or c.batch * c.heads * pairs * c.head_dim**2 > cubic:
        if c.head_dim > 16 and pairs * c.head_dim**2 * 2 > cubic:
            c = replace(c, head_dim=c.head_dim // 2, value_dim=min(c.value_dim, 32))
        elif c.batch > 2:
            c = replace(c, batch=c.batch // 2)
        elif c.heads > 1:
            c = replace(c, heads=c.heads // 2)
        elif c.head_dim > 4:
            c = replace(c, head_dim=c.head_dim // 2, value_dim=min(c.value_dim, 32))
        elif c.batch > 1:
            c = replace(c, batch=1)
        else:
            break
    return c


def of_pattern(condition: Condition, pattern: Pattern) -> Condition:
    """Self attention has as many queries as keys."""
    if pattern.cross:
        return condition
    return replace(condition, length_q=condition.length_k, query_mask=False)


def drawn_length(rng: random.Random, longest: int) -> int:
    """A length from 1 on: tiny, short, beside a block's border, or anywhere up to the longest."""
    kind = rng.random()
    if kind < 0.12 or longest < 8:
        return rng.randint(1, min(4, longest))
    if kind < 0.35:
        return rng.randint(5, min(64, longest))
    if kind < 0.6:
        block = rng.choice([b for b in _BLOCKS if b <= longest])
        return min(
            longest, max(1, rng.randint(1, max(1, longest // block)) * block + rng.randint(-1, 1))
        )
    return rng.randint(1, longest)


def drawn(pattern: Pattern, rng: random.Random, longest: int = 1300) -> Condition:
    """A condition at random, of bounded cost."""
    length_k = drawn_length(rng, longest)
    length_q = drawn_length(rng, longest) if pattern.cross else length_k
    if pattern.cross and rng.random() < 0.15:
        length_q = length_k
    head_dim = rng.choice(_HEAD_DIMS)
    dtype = rng.choice(_DTYPES)
    layers = rng.choice((1, 2, 3, 6, 12))
    training = rng.random() < 0.5
    scale = rng.choice(_SCALES)
    heads = rng.choice(_HEADS)
    condition = Condition(
        dtype=dtype,
        batch=rng.choice(_BATCHES),
        heads=heads,
        head_dim=head_dim,
        value_dim=rng.choice((head_dim, head_dim, max(1, head_dim // 2), 5, 2 * head_dim)),
        length_q=length_q,
        length_k=length_k,
        training=training,
        autocast=dtype is torch.float32 and rng.random() < 0.25,
        grad="grad" if training else rng.choice(_GRAD_MODES),
        layer_index=rng.randrange(layers),
        layers=layers,
        max_length=max(length_q, length_k) * rng.choice((1, 1, 2))
        if rng.random() < 0.6
        else rng.choice((2048, 4096, 16384)),
        mask=rng.choice(("", "", "", "mixed", "suffix", "prefix", "holes", "all")),
        query_mask=pattern.cross and rng.random() < 0.3,
        given=rng.choice(("none", "bare", "inputs", "inputs", "positions", "times", "all")),
        scale=scale,
        offset=min(scale, 1.0) * rng.choice((0.0, 0.0, 0.0, 2.0, -5.0)),
        strided=rng.random() < 0.5,
        embed_dim=rng.choice((0, 0, 0, 24, 200)),
        first_position=rng.choice((0, 0, 1, 50)),
        seed=rng.randrange(1 << 30),
    )
    if condition.mask and condition.given == "none":
        condition = replace(condition, given="bare")
    return at_most(condition)


def block_cuts(length: int, count: int, rng: random.Random) -> list[int]:
    """``count`` places between tokens, 1 to length - 1 (1 for a single token).

    All there are where there are as many; else all borders of blocks of 32 where they fit; else
    most of them at borders of usual block sizes, some beside one, some anywhere.
    """
    if length <= 2:
        return [1] * count
    if count >= length - 1:
        return [1 + i % (length - 1) for i in range(count)]
    borders = list(range(_COMMON_BLOCK, length, _COMMON_BLOCK))
    cuts: list[int] = rng.sample(borders, min(len(borders), max(1, count // 2)))
    if len(borders) <= count:
        cuts = borders
    while len(cuts) < count:
        block = rng.choice([b for b in _BLOCKS if b < length] or [1])
        beside = rng.randrange(block, length, block) + rng.choice((-1, 0, 1)) if block > 1 else 1
        cuts.append(rng.choice((beside, length - 1, rng.randrange(1, length))))
    return [min(max(1, cut), length - 1) for cut in cuts]
