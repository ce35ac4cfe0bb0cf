"""Tasks whose problems are drawn instead of read."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from cab.task_contract import Task


class GeneratedTask(Task):
    """A task without data: fresh problems for every batch, from a generator of its own.

    Its record has ``dataset="generated"``. Batches come from the generator that `training_batch` is
    given, evaluated problems from `cab.seeds.evaluation`, and everything that the problems depend
    on beside the code is in `problem_settings`.
    """

    @property
    @abstractmethod
    def problem_settings(self) -> object:
        """What the problems of this scale and pattern depend on beside the code: numbers, words,
        and dataclasses, mappings and sequences of them.
        """

    @property
    def data_hash(self) -> str:
        """Hash of the settings."""
        text = json.dumps(_plain(self.problem_settings), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: object) -> Any:
    """As JSON has it.

    Raises:
        TypeError: nothing that the same settings give the same text for, on every machine.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, str | int | float | bool | None):
        return value
    if isinstance(value, Sequence):
        return [_plain(entry) for entry in value]
    raise TypeError(
        f"{type(value).__name__} {value!r} cannot be hashed; settings are numbers, words, and "
        "dataclasses, mappings and sequences of them"
    )
