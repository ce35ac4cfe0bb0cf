"""A cell: the unit of work whose result is stored once and reused for ever."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cab.info import OptionValue
from cab.version import SUITE_VERSION


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Everything that determines a measured number.

    ``key`` is a content hash of all fields but those in ``_LOCATIONS``, which say where code and
    data lie on this machine; what lies there enters through its hash.
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
    suite_version: str = SUITE_VERSION

    @property
    def key(self) -> str:
        """Content hash (hexadecimal)."""
        content = {k: v for k, v in asdict(self).items() if k not in _LOCATIONS}
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
        content: dict[str, Any] = json.loads(text)
        content["measures"] = tuple(content["measures"])
        return cls(**content)


_LOCATIONS = frozenset({"target", "task_target", "data_dir", "grade"})
