"""Multi-head projection around an attention slot."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cab import AttentionContext, Layer, Pattern


class MultiHeadAttention(nn.Module):
    """W_q, W_k, W_v and W_o around whatever mechanism the slot holds.

    With the control ``none`` a self slot becomes W_o W_v x of the token itself and a cross slot a
    constant, so what remains is the backbone without mixing between tokens.
    """

    def __init__(
        self,
        layer: Layer,
        pattern: Pattern,
        dim: int,
        heads: int,
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"width {dim} is not divisible by {heads} heads")
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)
        self.core = layer(
            pattern,
            heads=heads,
            head_dim=dim // heads,
            embed_dim=dim,
        )

    @property
    def cross(self) -> bool:
        """Whether keys and values come from another sequence."""
        return self.core.pattern.cross

    def forward(
        self,
        x: Tensor,
        source: Tensor | None = None,
        *,
        query_mask: Tensor | None = None,
        key_mask: Tensor | None = None,
        grid: tuple[int, ...] | None = None,
    ) -> Tensor:
        """Mix tokens.

        Args:
            x: (B, Lq, E).
            source: (B, Lk, E) in a cross slot, None in a self slot.
            query_mask: (B, Lq) bool, True where the token is valid.
            key_mask: (B, Lk) bool; in a self slot the query mask serves for both.
            grid: shape of the grid that the tokens ``x`` lie on, row-major.

        Returns:
            (B, Lq, E)
        """
        keys = x if source is None else source
        if source is None and key_mask is None:
            key_mask = query_mask
        context = AttentionContext(
            query_mask=query_mask,
            key_mask=key_mask,
            query_input=x,
            key_input=keys,
            query_grid=grid,
        )
        mixed = self.core(
            self._split(self.query(x)),
            self._split(self.key(keys)),
            self._split(self.value(keys)),
            context,
        )
        return self.output(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


@torch.no_grad()
def start_as_copy(attention: MultiHeadAttention, scale: float = 1.0) -> None:
    """Value and output projections start as the identity, the output times ``scale``.

    Copying circuits do not form within a short training run otherwise.
    """
    nn.init.eye_(attention.value.weight)
    nn.init.eye_(attention.output.weight)
    attention.output.weight.mul_(scale)


@torch.no_grad()
def start_as_similarity(attention: MultiHeadAttention) -> None:
    """Query and key projections start as one orthogonal matrix: attention looks for likeness."""
    nn.init.orthogonal_(attention.query.weight)
    attention.key.weight.copy_(attention.query.weight)
