"""Where a hybrid can be measured: on tasks whose backbone has a slot for each of its parts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from cab.candidate import Candidate
from cab.chosen_task import ChosenTask
from cab.hybrids.placement import in_words, slots_of_parts
from cab.info import Scale
from cab.patterns import Pattern


@dataclass(frozen=True)
class Placements:
    """Which candidates can stand in which tasks, in slots of one pattern."""

    candidates: Sequence[Candidate]
    """That claim the pattern"""
    lacking: set[tuple[str, str]] = field(default_factory=set)
    """Hybrids and tasks whose backbone has no slot for one of the parts"""
    notes: list[str] = field(default_factory=list)
    """How many slots the parts have, a sentence for each hybrid, and what is left out"""

    def allow(self, candidate: Candidate, task: ChosenTask) -> bool:
        """Whether a candidate stands in a task as its name says."""
        return (candidate.id, task.id) not in self.lacking

    def wanted(self, task: ChosenTask) -> bool:
        """Whether any candidate stands in a task, so that the controls are of use there."""
        return any(self.allow(candidate, task) for candidate in self.candidates)


def placements(
    candidates: Sequence[Candidate],
    tasks: Sequence[ChosenTask],
    pattern: Pattern,
    scale: Scale,
    baseline: Candidate,
) -> Placements:
    """Look at the backbones of some tasks, if a candidate is a hybrid.

    Args:
        candidates: hybrids and others.
        tasks: that have slots of the pattern.
        pattern: of the slots.
        scale: of the run.
        baseline: is built in the slots, to count them.
    """
    claiming = [c for c in candidates if c.grade(pattern) is not None]
    found = Placements(claiming)
    for hybrid in (candidate for candidate in claiming if candidate.parts):
        places: dict[str, list[str]] = {}
        lacking: dict[str, list[str]] = {}
        for task in tasks:
            counts = slots_of_parts(hybrid.parts, slot_layers(task, pattern, scale, baseline))
            missing = ", ".join(label for label, number in counts.items() if not number)
            if missing:
                found.lacking.add((hybrid.id, task.id))
                lacking.setdefault(missing, []).append(task.id)
            else:
                places.setdefault(in_words(counts), []).append(task.id)
        found.notes.extend(
            f"{hybrid.id}: no layer for {missing} in the {pattern} slots of {', '.join(names)} at "
            f"scale {scale}: left out"
            for missing, names in lacking.items()
        )
        found.notes.extend(
            f"{hybrid.id}: {words} in the {pattern} slots of {', '.join(names)}"
            for words, names in places.items()
        )
    return found


def slot_layers(
    task: ChosenTask, pattern: Pattern, scale: Scale, baseline: Candidate
) -> tuple[int, ...]:
    """Index of the layer of every slot of a pattern, each in its own stack; found out by building
    the backbone, once for each version of the task and its data.

    Raises:
        DataError: data missing, truncated or altered.
    """

    def compute() -> str:
        from cab.slots import Slots

        softmax = baseline.load()
        slots = Slots(pattern, softmax, softmax)
        task.load()(pattern, scale, task.data_dir).build(slots)
        return json.dumps([module.spec.layer_index for module in slots.candidates])

    data = task.data_hash(pattern, scale)
    key = f"layers {task.id} {task.hash()} {data} {pattern} {scale}"
    # No files to look at: code and data stand in the key by their hashes.
    return tuple(json.loads(task.hashes.data(key, tuple, compute)))
