"""Plain text from the markup, line ends and typography of the sources."""

from __future__ import annotations

import html
import re
import unicodedata

_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_LINE_BREAK = re.compile(r"<\s*(?:br|/?p)\b[^>]*>", re.IGNORECASE)
# A letter must follow, so that "<1%" stays.
_TAG = re.compile(r"</?[a-zA-Z][^>]*>")

# One spelling for what the sources write in two ways; dashes are left as they are.
_TYPOGRAPHY = str.maketrans(
    {
        "\N{LEFT SINGLE QUOTATION MARK}": "'",
        "\N{RIGHT SINGLE QUOTATION MARK}": "'",
        "\N{LEFT DOUBLE QUOTATION MARK}": '"',
        "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
        "\N{HYPHEN}": "-",
        "\N{NON-BREAKING HYPHEN}": "-",
        "\N{SOFT HYPHEN}": None,
        "\N{ZERO WIDTH SPACE}": None,
        "\N{ZERO WIDTH NO-BREAK SPACE}": None,
    }
)


def one_line(text: str) -> str:
    """NFC, straight quotes, and every run of white space as one space."""
    text = unicodedata.normalize("NFC", text).translate(_TYPOGRAPHY)
    return " ".join(text.split())


def from_html(text: str) -> str:
    """The text of an HTML fragment: a line per paragraph, no tags, no entities, no blank lines."""
    text = _LINE_BREAK.sub("\n", _COMMENT.sub("", text))
    text = html.unescape(_TAG.sub("", text))
    lines = (one_line(line) for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def verse(text: str) -> str:
    """Lines of verse or drama without indentation, and at most one blank line in a row."""
    lines = "\n".join(one_line(line) for line in text.splitlines())
    return re.sub(r"\n{3,}", "\n\n", lines).strip()
