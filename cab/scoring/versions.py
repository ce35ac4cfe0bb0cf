"""Which rows count where a store holds more than one answer to a question.

A store remembers everything: cells that were tried again, mechanisms and tasks as they were before
they were changed, copies of files, the user's rows and the reference's, several machines. A table
may hold one of each. In this order:

1. of a cell the user's own rows, and of these its newest run that came to a number or found it
   invalid, else its newest;
2. of a task the newest code and data: all entries of a task are compared under one version;
3. of an entry one version of the mechanism over all tasks of a track: that of the code which is
   installed here, where it was measured; else the newest of the user's own; else the newest;
4. of a cost track one machine: the user's newest, else the reference's;
5. of a seed the user's own rows, and of each number the newest row, so that copies count once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from cab.label import Label
from cab.schema import DECISIVE
from cab.scoring.codes import Codes, Mask, codes_of, group_codes
from cab.track import Track

TRACK = ("kind", "pattern", "scale", "device")
"""What may share a table"""
_JOINED = {"track": TRACK, "place": ("track", "entry", "task")}
"""Names that several columns have as one"""

_DERIVED = ("entry", "board")
"""Names of what is no column"""

_NUMBER = (
    "seed", "phase", "metric", "length_q", "length_k", "batch", "heads", "head_dim", "dtype",
)  # fmt: skip
"""What tells the numbers of an entry on a task from each other"""

Installed = Callable[[str], Collection[str]]
"""Hashes of an attention's code as it is installed here, none where it is not"""


@dataclass(frozen=True)
class Stale:
    """A task on which an entry has no result that counts, though it has one of other code."""

    track: Track
    entry: str
    task: str
    of_task: bool
    """Whether the task's code or data is what changed, rather than the mechanism's code"""


@dataclass(frozen=True)
class Machine:
    """What the costs of one track were measured on."""

    track: Track
    name: str
    """``AMD EPYC, 2 threads``"""
    elsewhere: tuple[str, ...]
    """Entries that were measured on other machines only"""


@dataclass(frozen=True)
class Counting:
    """The rows that count, and what a reader must know of the others."""

    kept: Codes
    """Places of rows, in the order of their times"""
    superseded: int
    """Rows of older runs, code or data"""
    stale: tuple[Stale, ...]
    machines: tuple[Machine, ...]


@lru_cache(maxsize=1024)
def installed_hashes(attention: str) -> Collection[str]:
    """Hashes of the code of a registered attention, of what scores and of what costs depend on;
    none of one that is not registered.
    """
    from cab.code_hash import attention_hash
    from cab.errors import CabError
    from cab.plan_cache import PlanCache
    from cab.registries import ATTENTIONS

    entry = ATTENTIONS.listed(attention)
    if entry is None:
        return ()
    cache = PlanCache()
    try:
        return [attention_hash(entry.target, kind, cache) for kind in ("quality", "efficiency")]
    except (CabError, OSError, SyntaxError):  # a user's file that is being edited is no version
        return ()
    finally:
        cache.save()


def counting(
    rows: pd.DataFrame, entries: pd.Series, installed: Installed = installed_hashes
) -> Counting:
    """Choose among measured rows.

    Args:
        rows: with the columns of `cab.schema`; those of a machine or a geometry may be missing.
        entries: name of what each row ranks.
        installed: hashes of the code of an attention as it is here.
    """
    times = pd.DatetimeIndex(rows["recorded_at"]).asi8
    order = np.arange(len(rows))
    if (times[1:] < times[:-1]).any():
        order = np.argsort(times, kind="stable")
    return _Selection(rows, entries, order).run(installed)


class _Selection:
    """The rows in the order of their times, as numbers, and those that are left."""

    def __init__(self, rows: pd.DataFrame, entries: pd.Series, order: Codes) -> None:
        self.rows, self.entries, self.order = rows, entries, order
        self.kept = np.arange(len(rows))
        self._codes: dict[str, Codes] = {}
        self.own: Mask = np.ones(len(rows), dtype=bool)
        if "label" in rows:
            self.own = (rows["label"] != Label.REFERENCE.value).to_numpy()[order]
        self.mixed = bool(self.own.any() and not self.own.all())

    def run(self, installed: Installed) -> Counting:
        self._prefer_own(("cell",))
        before = len(self.kept)
        self._keep(self._newest("run_id", ("cell",), decisive=True))
        lost_tasks = self._keep(self._newest("task_hash", ("track", "task")))
        lost_tasks |= self._keep(self._newest("data_hash", ("track", "task")))
        lost_code = self._keep(self._of_one_code(installed))
        superseded = before - len(self.kept)
        machines = self._one_machine()
        self._prefer_own(("place", "seed"))
        self._keep(_last(self._group(("place", *_NUMBER))))
        stale = self._stale(lost_tasks, True) + self._stale(lost_code, False)
        return Counting(self.order[self.kept], superseded, stale, machines)

    def _code(self, name: str) -> Codes:
        """A column of all rows; of one that the table lacks nothing is known."""
        if name not in self._codes:
            if name in _JOINED:
                codes = group_codes([self._code(part) for part in _JOINED[name]])
            elif name == "entry":
                codes = codes_of(self.entries)[self.order]
            elif name == "board":
                codes = self._boards()
            elif name in self.rows:
                codes = codes_of(self.rows[name])[self.order]
            else:
                codes = np.full(len(self.rows), -1, dtype=np.int64)
            self._codes[name] = codes
        return self._codes[name]

    def _boards(self) -> Codes:
        """Probes are ranked apart from all other tasks, so they may have another version."""
        if "task" not in self.rows:
            return np.zeros(len(self.rows), dtype=np.int64)
        from cab.registries import TASKS

        probes = [info.id for info in TASKS.infos() if info.probe]
        return self.rows["task"].isin(probes).to_numpy().astype(np.int64)[self.order]

    def _group(self, names: tuple[str, ...]) -> Codes:
        present = [name for name in names if name in (*_JOINED, *_DERIVED) or name in self.rows]
        return group_codes([self._code(name)[self.kept] for name in present])

    def _keep(self, mask: Mask) -> Mask:
        """Go on with some of the rows; gives those that went, among all."""
        lost = np.zeros(len(self.order), dtype=bool)
        lost[self.kept[~mask]] = True
        self.kept = self.kept[mask]
        return lost

    def _prefer_own(self, group: tuple[str, ...]) -> None:
        """No reference rows in groups of which the user has rows."""
        if not self.mixed:
            return
        place, own = self._group(group), self.own[self.kept]
        owned = np.zeros(int(place.max(initial=-1)) + 1, dtype=bool)
        owned[place[own]] = True
        self._keep(own | ~owned[place])

    def _newest(self, version: str, group: tuple[str, ...], decisive: bool = False) -> Mask:
        """Rows of the version that was recorded last in their group; a version that nobody recorded
        supersedes nothing.

        Args:
            version: a column.
            group: columns.
            decisive: whether one that came to nothing supersedes none that did not.
        """
        versions, place = self._code(version)[self.kept], self._group(group)
        newest = _last_in(place, versions, versions >= 0)
        if decisive:
            told = self.rows["status"].isin([end.value for end in DECISIVE]).to_numpy()
            told = told[self.order][self.kept]
            best = _last_in(place, versions, (versions >= 0) & told)
            newest = np.where(best >= 0, best, newest)
        return (versions == newest[place]) | (newest[place] < 0)

    def _of_one_code(self, installed: Installed) -> Mask:
        versions = self._code("attention_hash")[self.kept]
        place, known = self._group(("track", "board", "entry")), versions >= 0
        chosen = _last_in(place, versions, known)
        own = _last_in(place, versions, known & self.own[self.kept])
        chosen = np.where(own >= 0, own, chosen)
        others = np.flatnonzero(known & (versions != chosen[place]))
        others = others[_one_of_each(group_codes([place[others], versions[others]]))]
        rows = self.rows[["attention", "attention_hash"]].iloc[self.order[self.kept[others]]]
        here = {str(name): installed(str(name)) for name in rows["attention"].unique()}
        for at, name, its_hash in zip(others, *(rows[c].tolist() for c in rows), strict=True):
            if its_hash in here[str(name)]:
                chosen[place[at]] = versions[at]
        return (versions == chosen[place]) | (chosen[place] < 0)

    def _one_machine(self) -> tuple[Machine, ...]:
        """Keep costs of one machine in every track.

        The reference's machine is another one even where the processor has the same name. An end
        that a parent recorded names no machine, and belongs to those of its label.
        """
        if "device_name" not in self.rows:
            return ()
        cost = (self.rows["kind"] == "efficiency").to_numpy()[self.order][self.kept]
        if not cost.any():
            return ()
        named = self._code("device_name")[self.kept] >= 0
        own = self.own[self.kept]
        machine = group_codes(
            [
                self._code("device_name")[self.kept],
                self._code("threads")[self.kept],
                own.astype(np.int64),
            ]
        )
        place = self._group(("track",))
        chosen = _last_in(place, machine, named)
        chosen_own = _last_in(place, machine, named & own)
        chosen = np.where(chosen_own >= 0, chosen_own, chosen)
        mask = ~cost | (machine == chosen[place]) | (chosen[place] < 0)
        mask |= ~named & (own == (chosen_own >= 0)[place])
        before, entry = self.kept, self._group(("track", "entry"))
        left = np.zeros(int(entry.max(initial=-1)) + 1, dtype=bool)
        left[entry[mask]] = True
        self._keep(mask)
        gone = np.flatnonzero(cost & ~mask & ~left[entry])
        gone = gone[_one_of_each(entry[gone])]
        firsts = np.flatnonzero(cost & named & mask)
        firsts = firsts[_one_of_each(place[firsts])]
        return self._machines(before[firsts], before[gone])

    def _machines(self, firsts: Codes, gone: Codes) -> tuple[Machine, ...]:
        """Of one row of every track that counts, and of rows of entries that have none left."""
        elsewhere: dict[Track, set[str]] = {}
        for track, entry in zip(
            self._tracks(gone), self.entries.iloc[self.order[gone]], strict=True
        ):
            elsewhere.setdefault(track, set()).add(str(entry))
        rows = self.rows.iloc[self.order[firsts]]
        return tuple(
            Machine(track, machine_name(name, threads), tuple(sorted(elsewhere.get(track, ()))))
            for track, name, threads in zip(
                self._tracks(firsts), rows["device_name"], rows["threads"], strict=True
            )
        )

    def _tracks(self, places: Codes) -> list[Track]:
        rows = self.rows.iloc[self.order[places]]
        return [
            Track(str(pattern), str(scale), str(device))
            for pattern, scale, device in zip(
                rows["pattern"], rows["scale"], rows["device"], strict=True
            )
        ]

    def _stale(self, lost: Mask, of_task: bool) -> tuple[Stale, ...]:
        """Tasks on which entries lost what they had and have nothing that counts."""
        if not lost.any():
            return ()
        place = self._code("place")
        has = np.zeros(int(place.max(initial=-1)) + 1, dtype=bool)
        has[place[self.kept]] = True
        gone = np.flatnonzero(lost & ~has[place])
        gone = gone[_one_of_each(place[gone])]
        rows = self.rows.iloc[self.order[gone]]
        found = [
            Stale(track, str(entry), str(task), of_task)
            for kind, track, entry, task in zip(
                rows["kind"], self._tracks(gone), self.entries.iloc[self.order[gone]], rows["task"],
                strict=True,
            )
            if kind == "quality"
        ]  # fmt: skip
        return tuple(sorted(found, key=lambda s: (s.track, s.entry, s.task)))


def machine_name(name: object, threads: object) -> str:
    """``AMD EPYC, 2 threads``."""
    if not isinstance(threads, int | float | np.integer | np.floating) or pd.isna(threads):
        return str(name)
    return f"{name}, {int(threads)} thread{'' if int(threads) == 1 else 's'}"


def _last_in(place: Codes, values: Codes, counts: Mask) -> Codes:
    """The last value that counts at every place, -1 where there is none."""
    found = np.full(int(place.max(initial=-1)) + 1, -1, dtype=np.int64)
    # Of several assignments to one place the last one, which is the latest, stays.
    found[place[counts]] = values[counts]
    return found


def _last(place: Codes) -> Mask:
    """The last row of every place."""
    number = np.arange(len(place))
    return _last_in(place, number, np.ones(len(place), dtype=bool))[place] == number


def _one_of_each(place: Codes) -> Codes:
    """One row of every place that occurs, in the order of the rows."""
    return np.flatnonzero(_last(place))
