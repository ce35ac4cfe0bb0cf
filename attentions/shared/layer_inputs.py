"""The layer's input at queries or keys, which gates and steps are computed from."""

from __future__ import annotations

from torch import Tensor

from cab import AttentionContext


def query_input(context: AttentionContext | None, name: str, use: str) -> Tensor:
    """(B, Lq, E) input at the queries.

    Raises:
        ValueError: the context has none; says that entry ``name`` takes its ``use`` from it.
    """
    if context is None or context.query_input is None:
        raise ValueError(
            f"{name} takes its {use} from the layer's input: call it with "
            "context=AttentionContext(query_input=x), x of shape (B, Lq, E)"
        )
    return context.query_input


def key_input(context: AttentionContext | None, name: str, use: str) -> Tensor:
    """(B, Lk, E) input at the keys; in self attention the layer's own.

    Raises:
        ValueError: as `query_input` does.
    """
    if context is None or context.key_input is None:
        raise ValueError(
            f"{name} takes its {use} from the layer's input at the keys: call it with "
            "context=AttentionContext(query_input=x, key_input=y), y of shape (B, Lk, E)"
        )
    return context.key_input
