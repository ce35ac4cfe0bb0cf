"""Attention layers of CAB's library, and ours with the same settings and, where both have them, the
same weights.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.timing import Call
from cab import Pattern
from cab.candidate import choose_candidate
from cab.slots import Slots
from tasks.backbones.multihead import MultiHeadAttention

EMBED, HEADS = 512, 8
_NS, _CS, _NC, _CC = (Pattern.parse(name) for name in ("NS", "CS", "NC", "CC"))
_PROJECTIONS = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}
"""Of ours and of theirs."""

Attend = Callable[[Tensor, Tensor], Tensor]
"""From tokens (B, Lq, E) and those of the keys (B, Lk, E) to (B, Lq, E)"""


@dataclass(frozen=True)
class Peer:
    """An attention of the library."""

    cls: str
    patterns: tuple[Pattern, ...]
    """What its documentation says that it can do"""
    options: dict[str, Any] = field(default_factory=dict)
    equal: tuple[Pattern, ...] = ()
    """Where it computes what ours does, from the same weights"""


PEERS = {
    "softmax": Peer("MultiheadAttention", (_NS, _CS, _NC, _CC), equal=(_NS, _CS, _NC, _CC)),
    "softmax-exact": Peer("MultiheadAttention", (_NS, _CS, _NC, _CC), equal=(_NS, _CS, _NC, _CC)),
    "abc": Peer("ABC", (_NS, _CS, _NC, _CC), equal=(_NS, _NC, _CC)),
    "performer": Peer("Performer", (_NS, _NC, _CC)),
    "local": Peer("LocalAttention", (_NS, _CS)),
    "nystromformer": Peer("NystromAttention", (_NS,)),
    "lara": Peer("Lara", (_NS,)),
    "cosformer": Peer("CosformerAttention", (_NS, _NC)),
    "prob-sparse": Peer("ProbSparse", (_NS,)),
    "s4d": Peer("S4D", (_NS, _CS), {"transposed": False}),
}
"""By our id. LongShort is two classes of the library."""

_LONG_SHORT = {_NS: Peer("AttentionLS", (_NS,)), _CS: Peer("CausalLS", (_CS,))}
_OWN_MASK = ("MultiheadAttention",)
"""Classes that are causal by a mask of scores; `causal` does nothing in them"""
_NEVER_CAUSAL = ("Performer", "MultiheadAttention")
"""Classes whose rows do not see each other, so that causal cross attention is the noncausal one"""


class Layers(NamedTuple):
    """Both layers of one entry on one pattern."""

    ours: nn.Module
    theirs: nn.Module
    attend_ours: Attend
    attend_theirs: Attend


def names() -> list[str]:
    """Entries that the library has too."""
    return [*PEERS, "long-short"]


def peer(name: str, pattern: Pattern) -> Peer | None:
    """What the library has of an entry on a pattern."""
    found = _LONG_SHORT.get(pattern) if name == "long-short" else PEERS[name]
    return found if found is not None and pattern in found.patterns else None


def load_library(folder: str) -> ModuleType:
    """The library, from its checkout.

    Args:
        folder: the folder ``efficient-attention`` of the repository.

    Raises:
        FileNotFoundError: it is not there.
        ImportError: a package that it needs is not installed.
    """
    path = Path(folder).expanduser().resolve()
    if not (path / "efficient_attention").is_dir():
        raise FileNotFoundError(f"{path} has no efficient_attention: clone Shark-NLP/CAB")
    sys.path.append(str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("efficient_attention")


def build(library: ModuleType, name: str, pattern: Pattern, length: int) -> Layers:
    """Both layers, with one set of weights where both have them."""
    known = peer(name, pattern)
    assert known is not None
    ours = _ours(name, pattern, length)
    theirs = _theirs(library, known, pattern)
    _share_weights(ours, theirs)
    causal_mask = None
    if pattern is _CS and known.cls in _OWN_MASK:
        causal_mask = torch.full((length, length), -torch.inf).triu(1)

    def attend_ours(x: Tensor, source: Tensor) -> Tensor:
        mixed: Tensor = ours(x, source if pattern.cross else None)
        return mixed

    def attend_theirs(x: Tensor, source: Tensor) -> Tensor:
        mask = None if causal_mask is None else causal_mask.to(x.dtype)
        mixed: Tensor = theirs(
            x, source, source, batch_first=True, need_weights=False, attn_mask=mask
        )[0]
        return mixed

    return Layers(ours, theirs, attend_ours, attend_theirs)


def prepare(attend: Attend, pattern: Pattern, batch: int, length: int) -> Call:
    """Forward and backward from fresh tokens."""
    x = torch.randn(batch, length, EMBED, requires_grad=True)
    source = torch.randn(batch, length, EMBED, requires_grad=True) if pattern.cross else x
    gradient = torch.randn(batch, length, EMBED)

    def forward_backward() -> Tensor:
        out = attend(x, source)
        out.backward(gradient)
        return out.detach()

    return forward_backward


def _ours(name: str, pattern: Pattern, length: int) -> MultiHeadAttention:
    preset = "cab" if "cab" in choose_candidate(name).info.presets else ""
    candidate = choose_candidate(name, preset=preset)
    slots = Slots(pattern, candidate.load(), choose_candidate("softmax").load(), candidate.options)
    return MultiHeadAttention(slots.layer(0, of=1, max_length=length), pattern, EMBED, HEADS)


def _theirs(library: ModuleType, known: Peer, pattern: Pattern) -> nn.Module:
    options = {"dropout": 0.0, "cross": pattern.cross, "causal": pattern.causal, **known.options}
    if known.cls in _NEVER_CAUSAL:
        options["causal"] = False
    cls = getattr(library, known.cls)
    module: nn.Module = cls(embed_dim=EMBED, num_heads=HEADS, **options)
    return module


@torch.no_grad()
def _share_weights(ours: MultiHeadAttention, theirs: nn.Module) -> None:
    for own, other in _PROJECTIONS.items():
        projection = getattr(theirs, other, None)
        if isinstance(projection, nn.Linear):
            projection.load_state_dict(getattr(ours, own).state_dict())
    for own, other in (("control_k", "compress_k"), ("control_v", "compress_v")):
        matrix = getattr(ours.core, own, None)
        if isinstance(matrix, nn.Parameter):
            getattr(theirs, other).copy_(matrix[0])
