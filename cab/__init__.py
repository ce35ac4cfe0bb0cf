"""Comprehensive Attention Benchmark: what an attention mechanism gives and costs, in one command.

The public names load on first use, so that ``import cab`` does not import torch::

    module = cab.attention("lla", pattern="causal-self", heads=4, head_dim=32)
    out = module(q, k, v)  # (B, H, L, D)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cab.version import SUITE_VERSION

if TYPE_CHECKING:
    from cab.artifact import Artifact
    from cab.attention_contract import (
        Attention,
        AttentionContext,
        AttentionShape,
        AttentionSpec,
        DecodeState,
    )
    from cab.info import (
        AttentionInfo,
        Grade,
        Kind,
        Metric,
        Option,
        OptionValue,
        Reference,
        Scale,
        TaskInfo,
    )
    from cab.patterns import Pattern
    from cab.registries import register_attention, register_task
    from cab.task_contract import Batch, Recipe, Slots, Task

__version__ = SUITE_VERSION

_HOMES = {
    "Artifact": "cab.artifact",
    "Attention": "cab.attention_contract",
    "AttentionContext": "cab.attention_contract",
    "AttentionInfo": "cab.info",
    "AttentionShape": "cab.attention_contract",
    "AttentionSpec": "cab.attention_contract",
    "Batch": "cab.task_contract",
    "DecodeState": "cab.attention_contract",
    "Grade": "cab.info",
    "Kind": "cab.info",
    "Metric": "cab.info",
    "Option": "cab.info",
    "Pattern": "cab.patterns",
    "Recipe": "cab.task_contract",
    "Reference": "cab.info",
    "Scale": "cab.info",
    "Slots": "cab.task_contract",
    "Task": "cab.task_contract",
    "TaskInfo": "cab.info",
    "register_attention": "cab.registries",
    "register_task": "cab.registries",
}

__all__ = [
    "Artifact",
    "Attention",
    "AttentionContext",
    "AttentionInfo",
    "AttentionShape",
    "AttentionSpec",
    "Batch",
    "DecodeState",
    "Grade",
    "Kind",
    "Metric",
    "Option",
    "Pattern",
    "Recipe",
    "Reference",
    "Scale",
    "Slots",
    "Task",
    "TaskInfo",
    "__version__",
    "attention",
    "attentions",
    "register_attention",
    "register_task",
    "tasks",
]


def attention(
    name: str,
    *,
    pattern: str | Pattern,
    heads: int,
    head_dim: int,
    preset: str = "",
    **options: OptionValue,
) -> Attention:
    """Build an attention module by id, ``file.py:Class`` or ``module:Class``.

    Args:
        name: id in the registry, or where the class lies.
        pattern: name of the pattern (``causal-self``) or CAB's abbreviation (``CS``).
        heads: number of heads H.
        head_dim: width of a head D.
        preset: name of settings that the entry declares (``cab``); ``options`` go on top.
        options: the entry's own options; see ``cab show NAME``. ``max_length``, ``embed_dim``,
            ``value_dim``, ``layer_index`` and ``layers`` go to the `AttentionSpec`.

    Raises:
        UnknownEntryError, RegistrationError, UnsupportedPatternError, OptionError.
    """
    from cab.attention_contract import AttentionSpec, build_attention
    from cab.patterns import Pattern
    from cab.registries import ATTENTIONS
    from cab.request import preset_options

    place: dict[str, Any] = {
        key: options.pop(key)
        for key in ("max_length", "embed_dim", "value_dim", "layer_index", "layers")
        if key in options
    }
    spec = AttentionSpec(Pattern.parse(pattern), heads, head_dim, **place)
    entry = ATTENTIONS.resolve(name)
    named = preset_options(entry.info, preset) if preset else {}
    return build_attention(ATTENTIONS.load(entry), spec, named | options)


def attentions() -> list[AttentionInfo]:
    """Info records of all registered attentions."""
    from cab.registries import ATTENTIONS

    return ATTENTIONS.infos()


def tasks() -> list[TaskInfo]:
    """Info records of all registered tasks."""
    from cab.registries import TASKS

    return TASKS.infos()


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'cab' has no attribute {name!r}")
