"""The two registries, as objects: `ATTENTIONS` and `TASKS` (no torch until something is loaded)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cab.hybrids.registry import AttentionRegistry
from cab.info import AttentionInfo, TaskInfo
from cab.registry import Registry


def _infer(cls: type) -> AttentionInfo:
    from cab.attention_contract import infer_attention_info

    return infer_attention_info(cls)


def _adapt(function: Callable[..., Any], name: str) -> type:
    from cab.function_attention import attention_of_function

    return attention_of_function(function, name)


ATTENTIONS = AttentionRegistry(
    noun="attention",
    group="cab.attentions",
    decorator="register_attention",
    info_type=AttentionInfo,
    base="cab.attention_contract:Attention",
    infer=_infer,
    adapt=_adapt,
)

TASKS: Registry[TaskInfo] = Registry(
    noun="task",
    group="cab.tasks",
    decorator="register_task",
    info_type=TaskInfo,
    base="cab.task_contract:Task",
)

register_attention = ATTENTIONS.register
"""Class decorator: ``@register_attention(AttentionInfo(...))``."""

register_task = TASKS.register
"""Class decorator: ``@register_task(TaskInfo(...))``."""

TASK_WORDS = PROBES, ALL = ("probes", "all")
"""Words that stand for many tasks"""


def named_tasks(names: Sequence[str]) -> list[str]:
    """Task ids, with the words ``probes`` and ``all`` replaced by the ids that they stand for."""
    infos = TASKS.infos()
    ids: list[str] = []
    for name in names:
        if name in (PROBES, ALL):
            ids += [info.id for info in infos if name == ALL or info.probe]
        else:
            ids.append(name)
    return list(dict.fromkeys(ids))
