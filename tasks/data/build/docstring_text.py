"""Summary and body of the docstrings of Python code, as plain text.

The code is parsed, never imported. Understood are the three styles that scientific packages write:
headings that are underlined (numpydoc), headings that end in a colon (Google), and fields such as
``:param x:`` (Sphinx).
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator

from tasks.data.build.text_cleaning import one_line

# What a reader needs to know what an object does; examples, references and lists of errors are not.
KEPT_SECTIONS = frozenset(
    {
        *("notes", "note", "explanation", "description", "details"),
        *("parameters", "other parameters", "arguments", "args", "attributes"),
        *("returns", "return", "yields"),
    }
)

_UNDERLINED = re.compile(r"^[ ]*(\w[\w ]{2,30}):?[ ]*\n[ ]*([-=~])\2{2,}[ ]*$", re.MULTILINE)
_COLON = re.compile(
    r"^(Args|Arguments|Attributes|Call arguments|Examples?|Example usage|Input shape|Keyword Args|"
    r"Keyword Arguments|Notes?|Output shape|Parameters|Raises|References?|Returns?|See [Aa]lso|"
    r"Standalone usage|Usage|Warnings?|Yields)[ ]*:[ ]*$",
    re.MULTILINE,
)
_FIELD = re.compile(r"^[ ]*:[a-z]+[ ]+([^:\n]+:)(?=\s)", re.MULTILINE)
_NAMELESS_FIELD = re.compile(r"^[ ]*:[a-z]+:(?=\s)", re.MULTILINE)

_BLANK_LINE = re.compile(r"\n\s*\n")
_LITERAL = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
# A doctest ends with the next blank line, which also ends its output.
_DOCTEST = re.compile(r"^[ ]*>>>.*(?:\n[ ]*\S.*)*", re.MULTILINE)
_MATH_ROLE = re.compile(r":math:`([^`]*)`")
_CITATION = re.compile(r":(?:foot)?cite\w*(?::\w+)?:`[^`]*`")
_ROLE = re.compile(r":[\w:+.-]+:`~?([^`<]*?)(?:\s*<[^`>]*>)?`")
_LINK = re.compile(r"`([^`<]+?)\s*<[^`>]*>`_{1,2}")
_FOOTNOTE = re.compile(r"\s*\[[\w#*]+\]_")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_BACKTICKS = re.compile(r"`+_*")
_SHORT_NAME = re.compile(r"(?<!\S)~(?=[A-Za-z_])")
_ESCAPE = re.compile(r"\\(?!\w)")
# Text that the package fills in when it is imported.
_PLACEHOLDER = re.compile(r"%\(\w+\)s|(?<![\w^}])\{\w+\}")
_EMPHASIS = re.compile(r"(?<![\w*])\*{1,2}([A-Za-z_][^*\n]*?)\*{1,2}(?![\w*])")


def docstrings(module: bytes) -> Iterator[tuple[str, str]]:
    """Qualified name and docstring of every class, function and method of a module, in its order.

    Raises:
        SyntaxError: not Python.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # escape sequences of others
        tree = ast.parse(module)
    yield from _walk(tree, "")


def _walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(child)
            if text:
                yield prefix + child.name, text
            if isinstance(child, ast.ClassDef):
                yield from _walk(child, f"{prefix}{child.name}.")
        elif isinstance(child, (ast.If, ast.Try)):
            yield from _walk(child, prefix)


def summary_and_body(docstring: str) -> tuple[str, str]:
    """The first paragraph on one line, and what explains it, with one line per paragraph."""
    heads = sorted([*_UNDERLINED.finditer(docstring), *_COLON.finditer(docstring)], key=_start)
    opening = docstring[: heads[0].start()] if heads else docstring
    summary, *rest = _BLANK_LINE.split(opening.strip(), maxsplit=1)
    ends = [*map(_start, heads), len(docstring)][1:]
    rest += [
        docstring[head.end() : end]
        for head, end in zip(heads, ends, strict=True)
        if head[1].lower() in KEPT_SECTIONS
    ]
    body = _PLACEHOLDER.sub("", _without_code("\n\n".join(rest)))
    lines = (one_line(plain(paragraph)) for paragraph in _BLANK_LINE.split(body))
    return one_line(plain(summary)), "\n".join(line for line in lines if line)


def plain(text: str) -> str:
    """Text without the markup of reStructuredText: roles, links, footnotes, emphasis, backticks."""
    text = _CONTROL.sub(" ", text)
    for pattern in (_CITATION, _NAMELESS_FIELD, _FOOTNOTE):
        text = pattern.sub("", text)
    for pattern in (_MATH_ROLE, _ROLE, _LINK, _EMPHASIS, _FIELD):
        text = pattern.sub(r"\1", text)
    for pattern in (_BACKTICKS, _SHORT_NAME, _ESCAPE):
        text = pattern.sub("", text)
    return text


def _without_code(text: str) -> str:
    """Text without doctests, literal blocks, tables' rules and directives such as ``.. math::``."""
    lines: list[str] = []
    hidden: int | None = None
    for line in _DOCTEST.sub("", _LITERAL.sub("", text)).splitlines():
        indent = len(line) - len(line.lstrip())
        if hidden is not None and (not line.strip() or indent > hidden):
            lines.append("")
            continue
        hidden = None
        if line.lstrip().startswith(".. "):
            hidden = indent
            continue
        if line.rstrip().endswith("::"):
            hidden, line = indent, line.rstrip()[:-1]
        if set(line.strip()) <= set("=-+|~ "):
            line = ""
        lines.append(line)
    return "\n".join(lines)


def _start(match: re.Match[str]) -> int:
    return match.start()
