"""docs/build_pictures.py: a picture of a terminal shows all that was printed."""

import html
import importlib
import io
import re
import sys
from pathlib import Path

import pytest

from cab.terminal import Terminal

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def pictures():
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        yield importlib.import_module("build_pictures")
    finally:
        sys.path.remove(str(ROOT / "docs"))


def shown(svg):
    """The lines of a picture."""
    lines = {}
    for x, y, text in re.findall(r'<text class="[^"]*r\d[^"]*" x="([\d.]+)" y="([\d.]+)"[^>]*>'
                                 r"([^<]*)</text>", svg):  # fmt: skip
        lines.setdefault(float(y), []).append((float(x), html.unescape(text)))
    joined = ["".join(text for _, text in sorted(lines[y])) for y in sorted(lines)]
    return [line.replace("\u00a0", " ").rstrip() for line in joined]


@pytest.mark.parametrize("extra", [-1, 0, 1, 40])
def test_no_line_is_cut(pictures, extra):
    width = pictures.COLUMNS
    console = Terminal(width=width, record=True, file=io.StringIO())
    long = "x" * (width + extra - 4) + " end"
    console.print("short")
    console.print(long, soft_wrap=True)
    console.print("wide 字 " + "y" * (width + extra), soft_wrap=True)
    console.print("word " * 40)
    lines = shown(pictures.whole_svg(console, "a command"))
    assert "short" in lines
    assert long in lines
    assert "wide 字 " + "y" * (width + extra) in lines
    assert len(lines) == 3 + -(-40 * 5 // width)


def test_a_picture_is_no_narrower_than_its_terminal(pictures):
    console = Terminal(width=pictures.COLUMNS, record=True, file=io.StringIO())
    console.print("short")
    svg = pictures.whole_svg(console, "a command")
    wide = Terminal(width=pictures.COLUMNS, record=True, file=io.StringIO())
    wide.print("z" * pictures.COLUMNS)
    box = re.compile(r'viewBox="0 0 (\d+)')
    assert box.search(svg)[1] == box.search(pictures.whole_svg(wide, "a command"))[1]
