"""Characters of a text as numbers."""

from __future__ import annotations

import string
import unicodedata

PADDING, END = 0, 1

ALPHABET = string.ascii_lowercase + " ',.?!;:\"()-"

TOKENS = 2 + len(ALPHABET)
"""Characters, `PADDING` and `END`"""

_NUMBERS = {character: number for number, character in enumerate(ALPHABET, start=2)}

_PLAIN = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "—": "-", "–": "-"})


def plain(text: str) -> str:
    """In lower case and without accents; what `ALPHABET` lacks is a space."""
    decomposed = unicodedata.normalize("NFKD", text.translate(_PLAIN).lower())
    kept = (c for c in decomposed if not unicodedata.combining(c))
    return " ".join("".join(c if c in _NUMBERS else " " for c in kept).split())


def tokens(text: str) -> list[int]:
    """Numbers of a `plain` text's characters, and `END`."""
    return [*(_NUMBERS[character] for character in text), END]
