"""The two registries, as objects: `ATTENTIONS` and `TASKS` (no torch until something is loaded)."""

from __future__ import annotations

from cab.info import AttentionInfo, TaskInfo
from cab.registry import Registry


def _infer(cls: type) -> AttentionInfo:
    from cab.attention_contract import infer_attention_info

    return infer_attention_info(cls)


ATTENTIONS: Registry[AttentionInfo] = Registry(
    noun="attention",
    group="cab.attentions",
    decorator="register_attention",
    info_type=AttentionInfo,
    base="cab.attention_contract:Attention",
    infer=_infer,
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
