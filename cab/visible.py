"""Text from outside - ids, messages, paths, words in files - with nothing in it that acts.

A terminal obeys control characters, a direction mark turns what follows it around, and a line break
makes one line look like two. All of them are shown as escapes.
"""

from __future__ import annotations

import unicodedata


def visible(text: str, keep: str = "") -> str:
    r"""The text with whatever cannot be seen as an escape: ``\x1b``, ``\n``, ``\u202e``.

    Args:
        text: from anywhere; lone surrogates, as in names of files, are escaped too.
        keep: characters to leave as they are, such as the line breaks of our own layout.
    """
    if text.isprintable():
        return text
    return "".join(c if c in keep or _seen(c) else _escape(c) for c in text)


def _seen(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
