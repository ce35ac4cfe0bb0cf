"""Cells of candidates and tasks, with the hashes of today's code and data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cab.candidate import Candidate, candidate_of
from cab.cell import Cell
from cab.chosen_task import ChosenTask
from cab.controls import BASELINE
from cab.info import OptionValue, Scale
from cab.patterns import Pattern
from cab.plan_hashes import PlanHashes
from cab.registries import ATTENTIONS
from cab.regularisers import runner_of


class CellFactory:
    """Makes the cells of one device and machine."""

    def __init__(
        self,
        device: str,
        machine: str = "",
        hashes: PlanHashes | None = None,
        baseline: Candidate | None = None,
    ) -> None:
        """Choose where the cells are to run.

        Args:
            device: cpu or cuda.
            machine: processor and threads, for efficiency cells.
            hashes: of the plan; None: the user's. Whoever makes cells saves them.
            baseline: what stands in the other slots, or beside the candidate; None: softmax.
        """
        self.hashes = PlanHashes() if hashes is None else hashes
        self._device, self._machine = device, machine
        self._baseline = baseline or candidate_of(ATTENTIONS.resolve(BASELINE), hashes=self.hashes)

    def quality(
        self, candidate: Candidate, pattern: Pattern, task: ChosenTask, scale: Scale, seed: int
    ) -> Cell:
        """One seed of a candidate on a task.

        Raises:
            DataError: data missing, truncated or altered.
        """
        return self._cell(
            "quality", candidate, pattern, scale, seed,
            task=task.id,
            task_target=task.target,
            task_hash=task.hash(),
            data_hash=task.data_hash(pattern, scale),
            data_dir=str(task.data_dir.resolve()) if task.data_dir else "",
            training=candidate.training,
        )  # fmt: skip

    def efficiency(
        self,
        candidate: Candidate,
        pattern: Pattern,
        scale: Scale,
        seed: int,
        measures: tuple[str, ...],
    ) -> Cell:
        """One process that measures what a candidate costs."""
        return self._cell(
            "efficiency", candidate, pattern, scale, seed, machine=self._machine, measures=measures
        )

    def _cell(
        self,
        kind: str,
        candidate: Candidate,
        pattern: Pattern,
        scale: Scale,
        seed: int,
        training: Mapping[str, OptionValue] | None = None,
        **fields: Any,
    ) -> Cell:
        """What cells of both kinds share, and a kind's own fields."""
        options = dict(candidate.options) | dict(training or {})
        return Cell(
            kind=kind,
            attention=candidate.id,
            target=candidate.target,
            options=options,
            grade=str(candidate.grade(pattern)),
            attention_hash=candidate.hash(kind),
            softmax_target=self._baseline.target,
            softmax_hash=self._baseline.hash(kind),
            runner_hash=self.hashes.runner(runner_of(kind, options)),
            pattern=pattern.value,
            scale=scale.value,
            seed=seed,
            device=self._device,
            **fields,
        )
