"""Which parts of a hybrid a backbone holds: its stacks are as deep as the task has made them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cab.hybrids.formula import Part, cycle_of

SLOTS_OF = "slots of "
"""Begins the metric that says how many slots a part has in a trained model"""


def slots_of_parts(parts: Sequence[Part], layers: Iterable[int]) -> dict[str, int]:
    """How many slots each part has, by its label.

    Args:
        parts: of a formula.
        layers: index of the layer of every slot, each in its own stack.
    """
    cycle = cycle_of(parts)
    counts = dict.fromkeys((part.label for part in parts), 0)
    for index in layers:
        counts[cycle[index % len(cycle)].label] += 1
    return counts


def in_words(counts: Mapping[str, int]) -> str:
    """``1 lla, 3 linear-elu``."""
    return ", ".join(f"{number} {label}" for label, number in counts.items())
