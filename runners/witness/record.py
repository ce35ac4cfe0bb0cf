"""What a witness holds, and whether two are of the same behaviour."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

ELSEWHERE = 1e-6
"""Relative difference that another kind of processor may make"""


@dataclass(frozen=True, kw_only=True)
class Witness:
    """What a training run shows within seconds."""

    processor: str
    losses: list[float]
    """Of the first steps, in full precision"""
    weights: str
    """Digest of the initial weights"""
    weight_sums: list[float]
    first_batches: str
    """Digest of the batches of these steps"""
    batches: str
    """Digest of all batches in their order"""
    recipe: str
    """Digest of the recipe and of the learning rate at every step"""
    untrained: dict[str, float | None]
    """Metrics of the untrained model by split and name; None: not a number"""
    looked_at: str
    """Digest of everything that evaluation fed to the untrained model"""
    miniature: str
    """Digest of a training run of full length on a toy problem"""
    miniature_scores: list[float]
    evaluation_code: str
    """Hash of what evaluates"""
    attention_code: str
    stateful: bool
    """Whether the candidate keeps something from step to step besides its weights, so that its
    first steps say little of later ones"""

    def to_json(self) -> str:
        """For the store."""
        return json.dumps(asdict(self), sort_keys=True, allow_nan=True)

    @classmethod
    def from_json(cls, text: str) -> Witness:
        """The inverse of `to_json`.

        Raises:
            ValueError: it is no witness.
        """
        try:
            content: dict[str, Any] = json.loads(text)
            return cls(**content)
        except TypeError as error:
            raise ValueError(f"no witness: {error}") from error


def differences(recorded: Witness, replayed: Witness) -> list[str]:
    """In what two witnesses differ; empty: they are of the same behaviour.

    On the same kind of processor everything must be equal to the last bit, elsewhere within
    `ELSEWHERE`. What a witness cannot tell counts as a difference where the code changed.
    """
    same = recorded.processor == replayed.processor
    return list(_differences(recorded, replayed, same))


def _differences(old: Witness, new: Witness, same: bool) -> Iterator[str]:
    if old.recipe != new.recipe:
        yield "the recipe or its learning rates"
    if old.first_batches != new.first_batches or old.batches != new.batches:
        yield "the data or their order"
    equal_weights = old.weights == new.weights if same else _near(old.weight_sums, new.weight_sums)
    if not equal_weights:
        yield "the initial weights"
    if not _equal(old.losses, new.losses, same):
        yield "the losses of the first steps"
    if same:
        loop = old.miniature == new.miniature
    else:
        loop = _near(old.miniature_scores, new.miniature_scores)
    if not loop:
        yield "the training loop (a run of full length in miniature)"
    yield from _metric_differences(old, new, same)
    if same and old.looked_at != new.looked_at:
        yield "what is evaluated"
    if (old.stateful or new.stateful) and old.attention_code != new.attention_code:
        yield "code of an attention that keeps a state over steps, which first steps do not show"


def _metric_differences(old: Witness, new: Witness, same: bool) -> Iterator[str]:
    if old.untrained.keys() != new.untrained.keys():
        yield "the metrics that are taken"
        return
    moved = [
        name
        for name, value in old.untrained.items()
        if not _equal([_number(value)], [_number(new.untrained[name])], same)
    ]
    if moved:
        yield f"metrics of the untrained model ({', '.join(sorted(moved))})"
    if old.evaluation_code != new.evaluation_code:
        silent = sorted(name for name, value in old.untrained.items() if _says_nothing(value))
        if silent:
            yield f"code that evaluates, and {', '.join(silent)} say nothing of an untrained model"


def _says_nothing(value: float | None) -> bool:
    """An error rate of 1, no match at all: many formulas give it."""
    return value is None or not math.isfinite(value) or value == round(value)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _equal(one: Sequence[float], other: Sequence[float], same: bool) -> bool:
    if not same:
        return _near(one, other)
    return len(one) == len(other) and all(
        a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(one, other, strict=True)
    )


def _near(one: Sequence[float], other: Sequence[float]) -> bool:
    return len(one) == len(other) and all(
        math.isclose(a, b, rel_tol=ELSEWHERE) or (math.isnan(a) and math.isnan(b))
        for a, b in zip(one, other, strict=True)
    )


def finite_or_none(values: Mapping[str, float]) -> dict[str, float | None]:
    """Numbers as JSON can hold them."""
    return {name: v if math.isfinite(v) else None for name, v in values.items()}
