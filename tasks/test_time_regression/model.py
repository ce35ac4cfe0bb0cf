"""The backbone ``direct``: the mechanism itself, with the pairs as its keys and values."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cab import AttentionContext, Batch, Pattern, Slots
from tasks.test_time_regression.problem import Problem


class Direct(nn.Module):
    """One head without projections: what is measured is the mechanism's own rule of prediction."""

    place: Tensor
    """Empty; tells the device of a model that may have no parameter."""

    def __init__(self, slots: Slots, pattern: Pattern, dim: int, max_length: int) -> None:
        super().__init__()
        self.core = slots(pattern, heads=1, head_dim=dim, max_length=max_length, embed_dim=dim)
        self.register_buffer("place", torch.empty(0), persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """Predictions (B, Lq, d) of the batch's targets."""
        queries, keys, values = batch["queries"], batch["keys"], batch["values"]
        mask = batch.get("key_mask")
        context = AttentionContext(
            query_mask=None if self.core.pattern.cross else mask,
            key_mask=mask,
            query_input=queries,
            key_input=keys,
        )
        return self.core(queries[:, None], keys[:, None], values[:, None], context)[:, 0]


def stream_batch(problem: Problem) -> dict[str, Tensor]:
    """Causal self attention over the stream: predict y_i from the pairs j < i.

    Keys and values are the pairs shifted by one, k_j = x_{j-1} and v_j = y_{j-1}, so that the
    ordinary causal mask j <= i shows query i exactly the pairs before it. Position 0 has no pair:
    its key is masked and its output is not scored.
    """
    keys, values = problem.x.roll(1, 1), problem.y.roll(1, 1)
    keys[:, 0] = 0.0
    values[:, 0] = 0.0
    seen = problem.x.new_ones(problem.x.shape[:2]).bool()
    seen[:, 0] = False
    return {
        "queries": problem.x,
        "keys": keys,
        "values": values,
        "key_mask": seen,
        "targets": problem.y,
        "scored": seen,
    }


def source_batch(problem: Problem, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Cross attention: the source holds all pairs, the queries are fresh inputs."""
    return {
        "queries": inputs,
        "keys": problem.x,
        "values": problem.y,
        "targets": targets,
        "scored": inputs.new_ones(inputs.shape[:2]).bool(),
    }
