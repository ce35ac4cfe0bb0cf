"""Whether the kernel has killed processes for want of memory, by its own counters.

A worker that dies of SIGKILL says nothing: its user may have killed it, a job manager, or the
kernel's out-of-memory killer. The last one counts what it kills: ``oom_kill`` in the memory events
of a control group and of those above it, and of the whole machine in ``/proc/vmstat``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

Counts = Mapping[str, int]
"""Kills so far, by the file that counts them"""

_COUNTER = "oom_kill"
_GROUP_FILES = ("memory.events", "memory.oom_control")
"""Of a control group of version 2, and of version 1"""


def memory_kills(root: Path = Path("/")) -> Counts:
    """Kills so far; empty where nothing counts them (no Linux, or files that may not be read).

    Args:
        root: of the file system; another one in tests.
    """
    found = {}
    for path in _files(root):
        try:
            words = path.read_text(encoding="ascii", errors="replace").split()
        except OSError:
            continue
        for name, number in itertools.pairwise(words):
            if name == _COUNTER and number.isdigit():
                found[str(path)] = int(number)
    return found


def has_killed(before: Counts, after: Counts) -> bool | None:
    """Whether one of the counters has gone up; None where there are none to compare."""
    shared = before.keys() & after.keys()
    return any(after[name] > before[name] for name in shared) if shared else None


def _files(root: Path) -> Iterator[Path]:
    yield root / "proc/vmstat"
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    mounted = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, own = [*line.split(":", 2), "", ""][:3]
        if controllers and "memory" not in controllers.split(","):
            continue
        base = mounted / "memory" if controllers else mounted
        # In a container the group's own path may not be there, and its root is what is mounted.
        group = base / own.lstrip("/")
        for folder in (group, *(p for p in group.parents if p.is_relative_to(base))):
            for name in _GROUP_FILES:
                yield folder / name
