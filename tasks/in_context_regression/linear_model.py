"""The backbone ``one-layer``: one attention layer over (x, y) tokens, and nothing else.

As in He et al. (2025, arXiv 2503.12734): a pair is the token [x; y] of d + k numbers, a query
[x; 0], every head has W_q, W_k and W_v of its own, and what W_o makes of the heads is the
prediction; there is no embedding, residual, norm or bias.

* Causal self: one stream of the pairs with the query as its last token, which is read out.
* Noncausal cross: the source is the pairs; queries attend to it.

With the control ``none`` a query never sees a pair: its prediction is a linear map of x (self) or
zero (cross).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cab import AttentionContext, Batch, Pattern, Slots
from tasks.evaluation import beside, parts
from tasks.in_context_regression.linear_prompts import Prompts

PROMPTS_AT_ONCE = 64
"""Evaluation runs in parts, to bound the memory of mechanisms that hold d^2 numbers per key."""


class OneLayer(nn.Module):
    """Predicts k targets of queries."""

    def __init__(
        self,
        slots: Slots,
        pattern: Pattern,
        *,
        dim: int,
        tasks: int,
        heads: int,
        head_dim: int,
        max_length: int,
    ) -> None:
        super().__init__()
        self.heads = heads
        width = dim + tasks
        self.query = nn.Linear(width, heads * head_dim, bias=False)
        self.key = nn.Linear(width, heads * head_dim, bias=False)
        self.value = nn.Linear(width, heads * head_dim, bias=False)
        self.output = nn.Linear(heads * head_dim, tasks, bias=False)
        layer = slots.layer(0, of=1, max_length=max_length)
        self.core = layer(pattern, heads=heads, head_dim=head_dim, embed_dim=width)

    def forward(self, batch: Batch) -> Tensor:
        """(P, M, k) from ``x`` (P, L, d), ``y`` (P, L, k) and ``queries`` (P, M, d).

        In causal self attention M is 1.
        """
        y, queries = batch["y"], batch["queries"]
        pairs = torch.cat([batch["x"], y], -1)
        asked = torch.cat([queries, y.new_zeros(*queries.shape[:2], y.shape[-1])], -1)
        if self.core.pattern.cross:
            return self._attend(asked, pairs)
        if queries.shape[1] != 1:
            raise ValueError(f"a stream ends with one query, not {queries.shape[1]}")
        stream = torch.cat([pairs, asked], 1)
        return self._attend(stream, stream)[:, -1:]

    def _attend(self, x: Tensor, source: Tensor) -> Tensor:
        mixed = self.core(
            self._split(self.query(x)),
            self._split(self.key(source)),
            self._split(self.value(source)),
            AttentionContext(query_input=x, key_input=source),
        )
        return self.output(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class LayerPerKind(nn.Module):
    """A layer per kind of prompt that is trained on; they share nothing."""

    def __init__(self, layers: dict[str, OneLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)

    def forward(self, kind: str, batch: Batch) -> Tensor:
        """See `OneLayer.forward`."""
        return self.layers[kind](batch)


def predict(model: nn.Module, kind: str, prompts: Prompts) -> Tensor:
    """(P, M, k) predictions of the layer for a kind of prompt, on the CPU."""
    batch = {"x": prompts.x, "y": prompts.y, "queries": prompts.queries}
    asked = (beside(model, part) for part in parts(batch, PROMPTS_AT_ONCE))
    return torch.cat([model(kind, part).float().cpu() for part in asked])
