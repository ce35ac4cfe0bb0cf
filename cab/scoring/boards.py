"""Boards: the standings of a track by the tasks that are registered here, and which (task, pattern)
pairs measure attention by what a store holds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from cab.controls import BASELINE
from cab.info import Kind
from cab.registries import ATTENTIONS, TASKS
from cab.scoring.quality import QualityBoard, discrimination, quality_board, scores
from cab.scoring.results import Results, load_results
from cab.store import ResultStore
from cab.track import Setting, Track


def headline_metrics() -> dict[str, list[str]]:
    """Names of the headline metrics of every registered task; the first one stands for the task."""
    return {info.id: [m.name for m in info.metrics if m.headline] for info in TASKS.infos()}


def controls() -> set[str]:
    """Ids of the reference points that every leaderboard carries."""
    return {info.id for info in ATTENTIONS.infos() if info.kind is Kind.CONTROL}


def uninformative() -> set[str]:
    """Controls that are no mechanisms to compare: ``none`` would make any two columns agree, and
    ``softmax-exact`` is softmax again.
    """
    return controls() - {BASELINE}


def family_of(attention: str) -> str | None:
    """The idea that an attention is built on; None of one that is not registered."""
    entry = ATTENTIONS.listed(attention)
    return None if entry is None else entry.info.family.value


def board(results: Results, track: Track, tasks: Collection[str] = ()) -> QualityBoard:
    """Standings by the registered tasks' headline metrics, over some tasks or (none named) all
    but probes and those that are retired on the track's pattern.
    """
    infos = TASKS.infos()
    probes = [info.id for info in infos if info.probe]
    retired = [info.id for info in infos if track.pattern in info.retired]
    return quality_board(results, track, headline_metrics(), tasks, probes, retired)


def boards(
    results: Results, setting: Setting, patterns: Iterable[str], tasks: Collection[str] = ()
) -> dict[str, QualityBoard]:
    """The boards of some patterns in one setting."""
    return {name: board(results, setting.track(name), tasks) for name in map(str, patterns)}


def discriminating_pairs(
    store: ResultStore, scale: str, device: str
) -> dict[tuple[str, str], bool]:
    """By (task, pattern), for pairs that softmax and no attention have scores of."""
    results, setting = load_results(store), Setting(scale, device)
    headline = headline_metrics()
    found: dict[tuple[str, str], bool] = {}
    for info in TASKS.infos():
        for pattern in info.patterns:
            table = scores(results, setting.track(pattern))
            measured = discrimination(table, info.id, headline[info.id][0])
            if measured is not None and measured.verdict is not None:
                found[info.id, pattern.value] = measured.verdict
    return found
