"""What an attention is told of its tokens beside q, k and v."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class AttentionContext:
    """What some mechanisms need beside q, k and v, and most ignore.

    Shapes: B batch, Lq queries, Lk keys, E embedding width. A mask is True where the token is
    valid; None means that all are. In self attention the query fields speak of the keys as well.
    """

    query_mask: Tensor | None = None
    """(B, Lq) bool"""
    key_mask: Tensor | None = None
    """(B, Lk) bool. A masked key is removed, and the others keep their positions: those in
    ``key_positions``, or else their places in the sequence with the masked key in it. So it has no
    effect on any output but by its place, which some mechanisms count. What is at masked places, of
    keys, values and layer inputs, may be anything, NaN and infinity included: a mechanism is given
    zeros there. The output of a masked query is finite, and means nothing."""
    query_input: Tensor | None = None
    """(B, Lq, E) the layer input that the queries were projected from"""
    key_input: Tensor | None = None
    """(B, Lk, E)"""
    query_positions: Tensor | None = None
    """(Lq,) or (B, Lq) integer positions; None: 0, 1, 2, ..."""
    key_positions: Tensor | None = None
    query_times: Tensor | None = None
    """(B, Lq) time stamps in the data set's unit, for irregular series"""
    key_times: Tensor | None = None
    query_grid: tuple[int, ...] | None = None
    """Shape of the grid that the tokens lie on, row-major (image: H, W; video: T, H, W)"""
    key_grid: tuple[int, ...] | None = None
