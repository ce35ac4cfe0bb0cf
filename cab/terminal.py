"""A console to which a string is text and nothing else: markup and emoji codes in it are letters,
and what a terminal would obey is escaped. What has a style is a `Text`.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from cab.visible import visible

LAYOUT = "\n"
"""What text of our own may hold; single lines from outside are made visible before they get here"""


class Terminal(Console):
    """Rich's console without its markup."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """As rich does, of text in which nothing acts."""
        options |= {"markup": False, "emoji": False}
        return super().render_str(visible(text, LAYOUT), **options)
