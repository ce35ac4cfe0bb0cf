"""Decoding beside the cache of transformers: states of `cab.Attention.step`, by layer, that go with
a cache and are made anew from its keys and values when it changes otherwise than by one token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from cab.attention_context import AttentionContext
from cab.attention_contract import Attention, DecodeState


def context_of(
    mask: Tensor | None,
    hidden: Tensor | None,
    length_q: int,
    length_k: int,
    inputs: Tensor | None = None,
) -> AttentionContext:
    """Of the last queries, whose layer inputs are ``hidden``, and of all keys with theirs, where
    they are known.
    """
    own = None if mask is None else mask[:, length_k - length_q :]
    whole = hidden if hidden is not None and hidden.shape[1] == length_k else inputs
    return AttentionContext(query_mask=own, key_mask=mask, query_input=hidden, key_input=whole)


@dataclass
class Past:
    """What is kept of a layer beside the cache."""

    state: DecodeState | None = None
    length: int = 0
    """Keys that are in the state"""
    inputs: Tensor | None = None
    """(B, L, E) layer inputs so far, of attentions that read them"""

    def append(self, hidden: Tensor | None, length: int) -> None:
        """Take note of the inputs of the newest tokens, of ``length`` there are."""
        if hidden is None:
            return
        known = 0 if self.inputs is None else self.inputs.shape[1]
        if self.inputs is not None and known + hidden.shape[1] == length:
            hidden = torch.cat([self.inputs, hidden], 1)
        self.inputs = hidden if hidden.shape[1] == length else None

    def forget(self, change: Callable[[Tensor], Tensor] | None) -> None:
        """The cache changed: a state is made anew from the keys and values that it holds, and from
        the inputs after the same change.
        """
        self.state, self.length = None, 0
        if change is None or self.inputs is None:
            self.inputs = None
        else:
            self.inputs = change(self.inputs)


PASTS: WeakKeyDictionary[Cache, dict[int, Past]] = WeakKeyDictionary()


def past_of(cache: Cache, layer: int) -> Past:
    """Of a layer; goes with its cache."""
    if cache not in PASTS:
        PASTS[cache] = {}
        cache.__class__ = _watched(type(cache))
    return PASTS[cache].setdefault(layer, Past())


_CHANGES: dict[str, Callable[..., Callable[[Tensor], Tensor] | None]] = {
    "reorder_cache": lambda cache, rows: lambda x: x.index_select(0, rows.to(x.device)),
    "batch_select_indices": lambda cache, rows: lambda x: x[rows],
    "batch_repeat_interleave": lambda cache, times: lambda x: x.repeat_interleave(times, dim=0),
    "crop": lambda cache, *_, **__: lambda x: x[:, : cache.get_seq_length()],
    "reset": lambda cache: None,
}
"""Methods after which a cache holds other keys, and what they do to inputs"""
_WATCHED: dict[type[Cache], type[Cache]] = {}


def _watched(kind: type[Cache]) -> type[Cache]:
    """The same kind of cache, whose changes are noticed."""
    if kind in _WATCHED.values():
        return kind
    if kind not in _WATCHED:
        methods = {name: _noticed(name) for name in _CHANGES if hasattr(kind, name)}
        _WATCHED[kind] = type(kind.__name__, (kind,), methods)
    return _WATCHED[kind]


def _noticed(name: str) -> Callable[..., Any]:
    def changed(self: Cache, *args: Any, **kwargs: Any) -> Any:
        done = getattr(super(type(self), self), name)(*args, **kwargs)
        change = _CHANGES[name](self, *args, **kwargs)
        for past in PASTS.get(self, {}).values():
            past.forget(change)
        return done

    changed.__name__ = name
    return changed


def attend_cached(
    attention: Attention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    hidden: Tensor | None,
    past: Past,
) -> Tensor:
    """Outputs of the newest tokens: of a prompt, of a part of it, or of the next token."""
    length = key.shape[-2]
    if query.shape[-2] > 1 or length == 1 or not type(attention).decodes():
        past.state = None
        context = context_of(mask, hidden, query.shape[-2], length, past.inputs)
        out: Tensor = attention(query, key, value, context)
        return out
    if past.state is None or past.length != length - 1:
        before = None if mask is None else mask[:, :-1]
        inputs = None if past.inputs is None else past.inputs[:, :-1]
        context = context_of(before, inputs, length - 1, length - 1)
        past.state = attention.prefill(key[:, :, :-1], value[:, :, :-1], context)
    own = {}
    if type(attention).step_takes_context():
        place = torch.tensor([length - 1], device=key.device)
        own["context"] = AttentionContext(
            query_input=hidden, key_input=hidden, query_positions=place, key_positions=place
        )
    out, past.state = attention.step(query, key[:, :, -1:], value[:, :, -1:], past.state, **own)
    past.length = length
    return out
