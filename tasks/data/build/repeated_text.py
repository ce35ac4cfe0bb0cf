"""Texts that repeat each other."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence


def runs(text: str, length: int) -> set[bytes]:
    """Digests of every run of ``length`` words of a text, in lower case, without punctuation."""
    words = re.findall(r"\w+", text.lower())
    return {
        hashlib.blake2b(" ".join(words[i : i + length]).encode(), digest_size=8).digest()
        for i in range(max(len(words) - length, 0) + 1)
    }


def distinct(texts: Sequence[str], length: int, share: float) -> list[int]:
    """Indexes of the texts that are no near-duplicates of one before them that was kept.

    Args:
        texts: in order of preference.
        length: words of a run.
        share: two texts are near-duplicates where they have at least this fraction of the runs of
            the one with fewer of them in common.
    """
    holders: dict[bytes, list[int]] = defaultdict(list)
    sizes: dict[int, int] = {}
    for index, text in enumerate(texts):
        found = runs(text, length)
        common = Counter(holder for run in found for holder in holders.get(run, ()))
        if any(n >= share * min(len(found), sizes[other]) for other, n in common.items()):
            continue
        sizes[index] = len(found)
        for run in found:
            holders[run].append(index)
    return list(sizes)
