"""Hashes of code and data for one plan: each is found out once, and kept for the next plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from cab.code_hash import attention_hash, runner_hash, task_hash
from cab.info import TaskInfo
from cab.plan_cache import PlanCache


class PlanHashes:
    """Looked up by what is hashed; whoever has made a plan calls `save`."""

    def __init__(self, cache: PlanCache | None = None) -> None:
        """Choose what is known already.

        Args:
            cache: of hashes that were computed before; None: the user's.
        """
        self._cache = PlanCache() if cache is None else cache
        self._known: dict[tuple[str, ...], str] = {}

    def attention(self, target: str, kind: str) -> str:
        """See `cab.code_hash.attention_hash`."""
        return self._once((kind, target), lambda: attention_hash(target, kind, self._cache))

    def task(self, target: str, info: TaskInfo) -> str:
        """See `cab.code_hash.task_hash`."""
        return self._once(("task", target), lambda: task_hash(target, info, self._cache))

    def runner(self, kind: str) -> str:
        """See `cab.code_hash.runner_hash`."""
        return self._once(("runner", kind), lambda: runner_hash(kind, self._cache))

    def data(
        self, key: str, files: Callable[[], Iterable[Path]], compute: Callable[[], str]
    ) -> str:
        """Of data, found out by ``compute`` where it is not known for these files as they are.

        Args:
            key: what is hashed, and how.
            files: that the data is read from.
            compute: gives the hash.
        """
        return self._once(("data", key), lambda: self._cache.data(key, files(), compute))

    def save(self) -> None:
        """Keep what is new for the next plan."""
        self._cache.save()

    def _once(self, key: tuple[str, ...], compute: Callable[[], str]) -> str:
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]
