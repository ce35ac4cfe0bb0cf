"""The class of a hybrid, which builds for each layer the part that stands there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cab.attention_contract import Attention, AttentionSpec, build_attention
from cab.info import AttentionInfo, OptionValue

Placed = tuple[type[Attention], Mapping[str, OptionValue]]
"""A class, with its options"""


def hybrid_class(info: AttentionInfo, cycle: Sequence[Placed]) -> type[Attention]:
    """A class whose instances are those of its parts: nothing stands between a slot and the module
    in it, so what holds of the part alone holds there.

    Args:
        info: of the hybrid.
        cycle: what stands in layers 0, 1, ..., before it begins again.
    """

    class Hybrid(Attention):
        def __new__(cls, spec: AttentionSpec) -> Any:  # of a part's class, not of this one
            part, options = cycle[spec.layer_index % len(cycle)]
            return build_attention(part, spec, options)

    Hybrid.info = info
    return Hybrid
