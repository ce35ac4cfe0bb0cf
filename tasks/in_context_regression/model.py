"""The backbone ``pairs-and-queries``: attention layers alone over (x, y) tokens.

A pair is the token [x; y] and a query [x; 0], each plus a trained vector of its kind. Layers are
attention with a residual, without feed-forward and without norm, whose scaling would take away the
magnitudes that are to be regressed; the prediction is a linear readout of the query's token. There
are no positions: segments are told apart by their inputs.

* Causal self: pairs and queries alternate in one stream, ..., [x_i; y_i], [x_{i+1}; 0],
  [x_{i+1}; y_{i+1}], ..., so that a query sees all pairs before it (and earlier queries).
* Noncausal cross: the source is the pairs, and every layer lets the queries attend to it.

A short training run needs a start from which regression is near: every head compares the x parts
of tokens, each with another temperature, takes the y part and puts it where the readout finds it.
This favours mechanisms that compare queries with keys; it is the same for all. With the control
``none`` a query never sees a pair and zero is predicted.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cab import Batch, Pattern, Slots
from tasks.backbones.multihead import MultiHeadAttention


class PairTransformer(nn.Module):
    """Predicts the targets of queries from pairs."""

    def __init__(
        self,
        slots: Slots,
        pattern: Pattern,
        *,
        dim: int,
        width: int,
        heads: int,
        layers: int,
        max_length: int,
    ) -> None:
        """Build the stack.

        Args:
            slots: gives the attention modules.
            pattern: of every slot: causal-self or noncausal-cross.
            dim: of x and of y.
            width: of a token inside; a head has width / heads, which ``dim`` must not exceed.
            heads: of every slot.
            layers: number of layers.
            max_length: longest sequence of keys.
        """
        super().__init__()
        self.cross = pattern.cross
        self.dim = dim
        self.embed = nn.Linear(2 * dim, width, bias=False)
        self.kind = nn.Parameter(torch.zeros(2, width))
        self.layers = nn.ModuleList(
            MultiHeadAttention(
                slots.layer(i, of=layers, max_length=max_length), pattern, width, heads
            )
            for i in range(layers)
        )
        self.readout = nn.Linear(width, dim)
        self._start(heads)

    @torch.no_grad()
    def _start(self, heads: int) -> None:
        nn.init.orthogonal_(self.embed.weight)
        nn.init.normal_(self.kind, std=0.1)
        of_x, of_y = (part.T for part in self.embed.weight.split(self.dim, 1))
        self.readout.weight.copy_(of_y)
        for layer in self.layers:
            assert isinstance(layer, MultiHeadAttention)
            for module in (layer.query, layer.value, layer.output):
                nn.init.normal_(module.weight, std=0.02)
            size = layer.query.weight.shape[0] // heads
            for head in range(heads):
                rows = slice(head * size, (head + 1) * size)
                frame = nn.init.orthogonal_(torch.empty(size, self.dim))
                # Logits of the heads times 1/2, 1, 2, ...
                layer.query.weight[rows] += 2 ** ((head - 1) / 2) * frame @ of_x
                layer.value.weight[rows] += frame @ of_y
                layer.output.weight[:, rows] += (frame @ of_y).T / (heads * len(self.layers))
            layer.key.weight.copy_(layer.query.weight)
            for module in (layer.query, layer.key, layer.value, layer.output):
                nn.init.zeros_(module.bias)

    def forward(self, batch: Batch) -> Tensor:
        """Predictions (B, Lq, d) of the targets; see `tasks.problems.piecewise_linear`."""
        x, y, at = batch["keys"], batch["values"], batch["queries"]
        pairs = self.embed(torch.cat([x, y], -1)) + self.kind[0]
        tokens = self.embed(torch.cat([at, torch.zeros_like(at)], -1)) + self.kind[1]
        if self.cross:
            for layer in self.layers:
                tokens = tokens + layer(tokens, pairs)
            return self.readout(tokens)
        stream = torch.stack([pairs, tokens], 2).flatten(1, 2)
        for layer in self.layers:
            stream = stream + layer(stream)
        return self.readout(stream[:, 1::2])
