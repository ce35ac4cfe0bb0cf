"""Masked tokens are zeros by the time that a mechanism sees them, whatever they held.

A masked key has no effect on any output. A mechanism gives it the weight zero, but zero times NaN
or infinity is NaN, in the output and in gradients; and padding may hold anything. So the base class
of the mechanisms takes the content of masked tokens away at the door: in `forward`, `reference` and
`prefill`. Nothing is done, and nothing costs, where there is no mask.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from cab.attention_context import AttentionContext

_MARK = "masked_tokens_are_zeros"


def masked_tokens_are_zeros(function: Callable[..., Any], *names: str) -> Callable[..., Any]:
    """The method ``function``, given zeros in the place of masked tokens.

    ``names`` are its first arguments: some of q, k and v, and the context last.
    """
    if getattr(function, _MARK, False):
        return function

    @functools.wraps(function)
    def method(self: Any, *args: Any, **options: Any) -> Any:
        given = dict(zip(names, args, strict=False)) | options
        context: AttentionContext | None = given.get("context")
        if context is None or (context.key_mask is None and context.query_mask is None):
            return function(self, *args, **options)
        for name in names[:-1]:
            mask = context.query_mask if name == "q" else context.key_mask
            given[name] = _zeroed(given[name], mask)
        given["context"] = _cleared(context)
        first = [given.pop(name) for name in names]
        return function(self, *first, *args[len(names) :], **given)

    setattr(method, _MARK, True)
    return method


def _cleared(context: AttentionContext) -> AttentionContext:
    """A context whose layer inputs are zeros where masked; one tensor stays one."""
    queries, keys = context.query_input, context.key_input
    cleared_keys = None if keys is None else _zeroed(keys, context.key_mask)
    if queries is keys and context.query_mask is context.key_mask:
        cleared_queries = cleared_keys
    else:
        cleared_queries = None if queries is None else _zeroed(queries, context.query_mask)
    return replace(context, query_input=cleared_queries, key_input=cleared_keys)


def _zeroed(x: Tensor, mask: Tensor | None) -> Tensor:
    """Heads (B, H, L, D) or layer inputs (B, L, E), zero where the mask (B, L) is False."""
    if mask is None:
        return x
    return x.masked_fill(~(mask[:, None, :, None] if x.ndim == 4 else mask[..., None]), 0.0)
