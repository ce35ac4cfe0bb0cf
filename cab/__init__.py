"""Comprehensive Attention Benchmark: what an attention mechanism gives and costs, in one command.

The public names load on first use, so that ``import cab`` does not import torch::

    module = cab.attention("lla", pattern="causal-self", heads=4, head_dim=32)
    out = module(q, k, v)  # (B, H, L, D)
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cab.version import SUITE_VERSION

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from cab.artifact import Artifact
    from cab.attention_context import AttentionContext
    from cab.attention_contract import (
        Attention,
        AttentionShape,
        AttentionSpec,
        DecodeState,
    )
    from cab.generated_task import GeneratedTask
    from cab.info import (
        AttentionInfo,
        Family,
        Grade,
        Kind,
        Metric,
        Option,
        Reference,
        Scale,
        TaskInfo,
    )
    from cab.patterns import Pattern
    from cab.registries import register_attention, register_task
    from cab.slots import Layer, Slots
    from cab.task_contract import Batch, Recipe, Task

__version__ = SUITE_VERSION

_HOMES = {
    "Artifact": "cab.artifact",
    "Attention": "cab.attention_contract",
    "AttentionContext": "cab.attention_context",
    "AttentionInfo": "cab.info",
    "AttentionShape": "cab.attention_contract",
    "AttentionSpec": "cab.attention_contract",
    "Batch": "cab.task_contract",
    "DecodeState": "cab.attention_contract",
    "Family": "cab.info",
    "GeneratedTask": "cab.generated_task",
    "Grade": "cab.info",
    "Kind": "cab.info",
    "Layer": "cab.slots",
    "Metric": "cab.info",
    "Option": "cab.info",
    "Pattern": "cab.patterns",
    "Recipe": "cab.task_contract",
    "Reference": "cab.info",
    "Scale": "cab.info",
    "Slots": "cab.slots",
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
    "Family",
    "GeneratedTask",
    "Grade",
    "Kind",
    "Layer",
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
    "bench",
    "register_attention",
    "register_task",
    "tasks",
]


def attention(
    name: str | type[Attention] | Callable[..., Tensor],
    *,
    pattern: str | Pattern,
    heads: int,
    head_dim: int,
    preset: str = "",
    **options: Any,
) -> Attention:
    """Build an attention module, for a model of your own.

    It checks the shapes of every call, and its ``repr`` says what it was built with.

    Args:
        name: an id of the registry, ``file.py:Class`` or ``module:Class``; a subclass of
            `Attention`; a function of q, k and v; or the formula of a hybrid, of which the part
            that stands in layer ``layer_index`` is built (``lla:1,linear-elu:3``).
        pattern: name of the pattern (``causal-self``) or CAB's abbreviation (``CS``).
        heads: number of heads H.
        head_dim: width of a head D.
        preset: name of settings that the entry declares (``cab``); ``options`` go on top.
        options: the entry's own options; see ``cab show NAME``. ``max_length``, ``embed_dim``,
            ``value_dim``, ``layer_index`` and ``layers`` go to the `AttentionSpec`.

    Raises:
        UsageError: sizes that are none.
        UnknownEntryError, RegistrationError, UnsupportedPatternError, OptionError.
    """
    from cab.standalone import build_standalone

    return build_standalone(name, pattern, heads, head_dim, preset, options)


def bench(
    attention: Any,
    *,
    pattern: str | list[str],
    lengths: Any = "",
    baseline: Any = "softmax",
    **settings: Any,
) -> pd.DataFrame:
    """Time attentions over lengths, each in processes of its own, as ``cab bench`` does.

        cab.bench("lla", pattern="causal-self", lengths=[256, 512])
        cab.bench(my_function, pattern="CS", lengths="1k..16k", baseline="sdpa:flash")

    Args:
        attention: an id, ``file.py:Name`` or ``module:Name``, a class, or a function of q, k and v;
            or a list of them. A class or a function must lie in a file or a module, since another
            process imports it; a script keeps the call below ``if __name__ == "__main__":``.
        pattern: name (``causal-self``) or abbreviation (``CS``), or several.
        lengths: numbers, or words as the command line has them; default: those of the device.
        baseline: what ratios are taken to; ``sdpa:flash``, ``sdpa:efficient``, ``sdpa:math``,
            ``sdpa:cudnn`` and ``flex`` too.
        settings: as the command line has them. ``phases`` (``forward``), ``batch``, ``heads``,
            ``head_dim``, ``dtype`` (each a value or a list; lists are crossed), ``source_length``,
            ``device``, ``processes`` (3), ``threads``, ``seconds``, ``compiled`` (torch.compile
            beside eager), ``options`` and ``preset`` of the attention, ``out``: a results folder,
            in which finished processes are kept; default: nothing is kept.

    Returns:
        A row for each attention, pattern, phase, geometry and length. `cab.benching.frame.COLUMNS`
        documents the columns: latency in seconds and ratio to the baseline with their 95 %
        intervals, memory in bytes, rates, and how the measurement ended.

    Raises:
        UsageError and its kinds: something of it does not exist, or does not run here.
        ContractError: an attention or the baseline breaks the contract.
        CabError: nothing could be measured.
    """
    front: Any = importlib.import_module("cab.benching.api")
    frame: pd.DataFrame = front.bench(
        attention, pattern=pattern, lengths=lengths, baseline=baseline, **settings
    )
    return frame


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


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
