"""Text to words."""

from __future__ import annotations

import re
from itertools import islice

_WORD = re.compile(r"\w+(?:[-'’.,/]\w+)*|[^\w\s]")


def words(text: str, limit: int | None = None) -> list[str]:
    """Lower-case words and single punctuation marks, at most ``limit`` of them.

    A word may hold one kind of mark inside: ``mid-1990s``, ``1,263``, ``u.s``.
    """
    found = (match.group().lower() for match in _WORD.finditer(text))
    return list(islice(found, limit))
