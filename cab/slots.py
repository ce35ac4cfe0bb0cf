"""The slots of a backbone: where its attention modules come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from cab import seeds
from cab.attention_contract import Attention, AttentionSpec, build_attention
from cab.info import OptionValue
from cab.patterns import Pattern


class Slots:
    """Builds the attention modules of a backbone: the candidate in slots of the run's pattern.

    Every other slot gets softmax. Modules are built under a random state of their own, so the
    backbone's shared weights are the same for every candidate of one seed. A backbone takes them
    layer by layer: ``slots.layer(0, of=2, max_length=512)(Pattern.CAUSAL_SELF, heads=4,
    head_dim=16)``.
    """

    def __init__(
        self,
        pattern: Pattern,
        candidate: type[Attention],
        softmax: type[Attention],
        options: Mapping[str, OptionValue] | None = None,
        seed: int = 0,
    ) -> None:
        self.pattern = pattern
        self.candidates: list[Attention] = []
        """The candidate modules built so far."""
        self._candidate = candidate
        self._softmax = softmax
        self._options = dict(options or {})
        self._seed = seed
        self._built = 0

    def layer(self, index: int, *, of: int, max_length: int) -> Layer:
        """The slots of one layer.

        Args:
            index: of the layer, from 0.
            of: layers of the stack.
            max_length: longest sequence of queries or keys that the layer sees.

        Raises:
            ValueError: the stack has no such layer.
        """
        if not 0 <= index < of:
            raise ValueError(f"layer {index} of {of} does not exist")
        return Layer(self, index, of, max_length)

    def build(self, spec: AttentionSpec) -> Attention:
        """The module for one slot."""
        self._built += 1
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.derive(self._seed, "weights", "slot", self._built))
            if spec.pattern != self.pattern:
                return build_attention(self._softmax, spec)
            module = build_attention(self._candidate, spec, self._options)
        self.candidates.append(module)
        return module


@dataclass(frozen=True)
class Layer:
    """One layer of a stack, which knows where it stands; gives the modules of its slots."""

    slots: Slots
    index: int
    """From 0"""
    of: int
    """Layers of the stack"""
    max_length: int
    """Longest sequence of queries or keys that the layer sees"""

    def __call__(
        self,
        pattern: Pattern,
        *,
        heads: int,
        head_dim: int,
        embed_dim: int | None = None,
        value_dim: int = 0,
    ) -> Attention:
        """The module for one slot; the arguments are those of `cab.AttentionSpec`."""
        return self.slots.build(
            AttentionSpec(
                pattern,
                heads,
                head_dim,
                self.index,
                self.of,
                self.max_length,
                embed_dim,
                value_dim,
            )
        )
