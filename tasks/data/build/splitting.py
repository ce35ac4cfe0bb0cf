"""Train, validation and test membership: whole documents, fixed once and stored in the manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

SEED = 0

Groups = Sequence[Sequence[str]]


def split_documents(
    weights: Mapping[str, int],
    targets: Mapping[str, int],
    together: Groups = (),
    tolerance: float = 0.0,
) -> dict[str, list[str]]:
    """Deal documents to the splits of `targets` until each holds its weight; the rest is train.

    Args:
        weights: the weight of every document, such as its number of characters.
        targets: the weight wanted in each held-out split.
        together: documents that share text, and so must not be separated.
        tolerance: how far a split may miss its target, as a fraction of it.

    Documents (or groups) are taken in the order of SHA-256("SEED:id"), which no version of any
    library can change. One that would overshoot a split is left to the next split.
    """
    groups = _groups(weights, together)
    splits: dict[str, list[str]] = {"train": [], **{name: [] for name in targets}}
    room = dict(targets)
    for group in sorted(groups, key=lambda g: _draw(g[0])):
        weight = sum(weights[i] for i in group)
        for name, target in targets.items():
            wanted = room[name] > tolerance * target
            if wanted and weight <= room[name] + tolerance * target:
                room[name] -= weight
                splits[name] += group
                break
        else:
            splits["train"] += group
    missed = [n for n, target in targets.items() if abs(room[n]) > tolerance * target]
    if missed:
        raise ValueError(f"no documents fit the targets of {', '.join(missed)}")
    order = {document: n for n, document in enumerate(weights)}
    return {name: sorted(ids, key=order.__getitem__) for name, ids in splits.items()}


def _groups(weights: Mapping[str, int], together: Groups) -> list[tuple[str, ...]]:
    joined = [tuple(i for i in group if i in weights) for group in together]
    grouped = [i for group in joined for i in group]
    if len(grouped) != len(set(grouped)):
        raise ValueError("a document stands in two groups")
    alone = [(i,) for i in weights if i not in set(grouped)]
    return [group for group in joined if group] + alone


def _draw(document: str) -> bytes:
    return hashlib.sha256(f"{SEED}:{document}".encode()).digest()
