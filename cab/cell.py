"""A cell: the unit of work whose result is stored once and reused for ever."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from cab.info import OptionValue
from cab.version import SUITE_VERSION

Point = tuple[str, int]
"""Phase and length (queries, in tokens) of what an efficiency cell measures"""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Everything that determines a measured number.

    ``key`` is a content hash of all fields but those in ``_NOT_HASHED``: where code and data lie on
    this machine, which enter through their hashes, and what one run does of the cell.
    """

    kind: str
    """quality or efficiency"""
    attention: str
    target: str
    """Where the attention's class lies: ``module:Class`` or ``/path/file.py:Class``"""
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    grade: str
    attention_hash: str
    softmax_hash: str
    """Code of the mechanism in the other slots (quality) or beside it (efficiency)"""
    softmax_target: str = ""
    """Where that lies"""
    runner_hash: str
    pattern: str
    task: str = ""
    task_target: str = ""
    task_hash: str = ""
    data_hash: str = ""
    data_dir: str = ""
    scale: str
    seed: int
    device: str
    """cpu or cuda"""
    machine: str = ""
    """Processor and threads, for efficiency cells: time is a property of the machine"""
    measures: tuple[str, ...] = ()
    """latency, memory: what an efficiency cell measures"""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Lengths, geometry and budgets of an efficiency cell; empty: those of the scale"""
    only: tuple[Point, ...] = ()
    """Points of an efficiency cell that are to be measured in this run, which changes none of its
    numbers; empty: all"""
    suite_version: str = SUITE_VERSION

    @cached_property
    def key(self) -> str:
        """Content hash (hexadecimal)."""
        content = {k: v for k, v in asdict(self).items() if k not in _NOT_HASHED}
        if not self.settings:
            # Cells that leave it out have the key that they had before there were settings.
            del content["settings"]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @property
    def title(self) -> str:
        """A short name for displays."""
        what = self.task if self.kind == "quality" else "/".join(self.measures)
        return f"{self.attention} · {what} · {self.pattern} · seed {self.seed}"

    def to_json(self) -> str:
        """For the worker process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Cell:
        """The inverse of `to_json`."""
        return cls.from_mapping(json.loads(text))

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Cell:
        """Of its fields as JSON has them."""
        content = dict(mapping)
        content["measures"] = tuple(content["measures"])
        content["only"] = tuple((phase, length) for phase, length in content.get("only", ()))
        return cls(**content)


_NOT_HASHED = frozenset({"target", "softmax_target", "task_target", "data_dir", "grade", "only"})
