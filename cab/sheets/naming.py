"""Names of what is shown, for files and cross references."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_LONGEST = 120
"""Characters; with an ending it is within what every file system takes"""


def slug(*words: object) -> str:
    """``latency-causal-self-forward-cpu``: words in small ASCII letters, digits and hyphens.

    Anything else is left out, so that it names a file anywhere and a label of LaTeX.
    """
    text = unicodedata.normalize("NFKD", " ".join(str(word) for word in words))
    text = "".join(character for character in text if not unicodedata.combining(character))
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_LONGEST].strip("-") or "unnamed"


def distinct(names: Iterable[str]) -> list[str]:
    """The names in their order; one that has been there gets a number behind it."""
    seen: set[str] = set()
    found = []
    for name in names:
        unique, number = name, 1
        while unique in seen:
            number += 1
            unique = f"{name}-{number}"
        seen.add(unique)
        found.append(unique)
    return found
