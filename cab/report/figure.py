"""A picture as a file: named after what it shows, and saying what it is wherever it is found.

Below the drawing stand its caption, its track and the code that measured; the same words are in the
file's own fields, which readers of documents and reference managers show: title and description of
an SVG, title and subject of a PDF, text chunks of a PNG.
"""

from __future__ import annotations

import html
import re
import struct
import textwrap
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cab.errors import StoreError
from cab.report.pdf import with_info
from cab.version import SUITE_VERSION
from cab.visible import visible

CREATOR = f"cab {SUITE_VERSION}"
_SIZE, _LINE, _MARGIN = 10.0, 13.0, 8.0
"""Of the words below a drawing: their size, the step between lines, and the room around them"""
_CHARACTER = 0.53
"""Mean width of a character over its size, in the usual fonts without serifs"""
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
_ROOT = re.compile(r"<svg\b[^>]*>")
_SHAPE = re.compile(r'viewBox="0 0 ([\d.]+) ([\d.]+)"')
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Words:
    """What a picture says of itself."""

    name: str
    """Of its file, without an ending"""
    title: str
    caption: str
    """How to read it"""
    track: str
    """Pattern, scale, device"""
    source: str
    """Versions and commits that measured"""

    @property
    def origin(self) -> str:
        """Track and source."""
        return "; ".join(filter(None, (self.track, self.source)))

    @property
    def whole(self) -> str:
        """Caption and origin as one text."""
        return " ".join(f"{part.rstrip('.')}." for part in (self.caption, self.origin) if part)


@dataclass(frozen=True)
class Figure:
    """An SVG drawing with its words in it."""

    words: Words
    svg: str

    @classmethod
    def of(cls, drawing: str, words: Words) -> Figure:
        """A drawing with its words put below it and into its fields.

        Args:
            drawing: an SVG element whose view box begins at 0, 0.
            words: what it shows.
        """
        return cls(words, _described(_with_footer(drawing, words), words))

    def save(self, folder: Path, endings: Sequence[str] = ("svg", "pdf")) -> list[Path]:
        """Write it; gives the files.

        Args:
            folder: made where there is none.
            endings: of ``svg``, ``pdf``, ``png``.

        Raises:
            StoreError: a file cannot be written.
        """
        written = []
        for ending in endings:
            path = folder / f"{self.words.name}.{ending}"
            try:
                folder.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self.as_bytes(ending))
            except OSError as error:
                raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
            written.append(path)
        return written

    def as_bytes(self, ending: str) -> bytes:
        """The file of one kind: ``svg``, ``pdf`` or ``png``."""
        import vl_convert

        if ending == "svg":
            return self.svg.encode()
        if ending == "pdf":
            found: bytes = vl_convert.svg_to_pdf(self.svg)
            return with_info(found, self.words.title, self.words.whole, CREATOR)
        picture: bytes = vl_convert.svg_to_png(self.svg, scale=2)
        texts = {"Title": self.words.title, "Description": self.words.whole, "Software": CREATOR}
        return _with_texts(picture, texts)


def _with_footer(drawing: str, words: Words) -> str:
    """Caption and origin below the drawing, which keeps its size."""
    shape = _SHAPE.search(drawing)
    if shape is None:
        raise ValueError("the drawing has no view box that begins at 0, 0")
    width, height = float(shape[1]), float(shape[2])
    most = max(20, int((width - 2 * _MARGIN) / (_SIZE * _CHARACTER)))
    lines = [line for part in (words.caption, words.origin) for line in textwrap.wrap(part, most)]
    higher = height + _LINE * len(lines) + _MARGIN
    texts = "".join(
        f'<text x="{_MARGIN:g}" y="{height + _LINE * (n + 1) - 2:.1f}" font-size="{_SIZE:g}" '
        f'font-family="{html.escape(_FONT)}" fill="#6B7079">{_xml(line)}</text>'
        for n, line in enumerate(lines)
    )
    root = _ROOT.search(drawing)
    assert root is not None
    head = _SHAPE.sub(f'viewBox="0 0 {width:g} {higher:g}"', root[0])
    head = re.sub(r'\bheight="[\d.]+"', f'height="{higher:g}"', head)
    rest = drawing[root.end() :]
    end = rest.rindex("</svg>")
    return f'{head}{rest[:end]}<g class="footer">{texts}</g></svg>'


def _described(drawing: str, words: Words) -> str:
    root = _ROOT.search(drawing)
    assert root is not None
    rest = re.sub(r"^\s*<title>.*?</title>", "", drawing[root.end() :], flags=re.DOTALL)
    metadata = (
        '<metadata><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
        'xmlns:dc="http://purl.org/dc/elements/1.1/"><rdf:Description rdf:about="">'
        f"<dc:title>{_xml(words.title)}</dc:title>"
        f"<dc:description>{_xml(words.whole)}</dc:description>"
        f"<dc:creator>{_xml(CREATOR)}</dc:creator>"
        "</rdf:Description></rdf:RDF></metadata>"
    )
    fields = f"<title>{_xml(words.title)}</title><desc>{_xml(words.whole)}</desc>{metadata}"
    return f"{root[0]}{fields}{rest}"


def _xml(text: str) -> str:
    """Text of XML, which forbids most control characters."""
    return html.escape(visible(text))


def _with_texts(picture: bytes, texts: dict[str, str]) -> bytes:
    """A PNG with text chunks behind its header."""
    header = len(_PNG) + 25
    chunks = [
        _chunk(b"iTXt", name.encode("latin-1") + b"\0\0\0\0\0" + text.encode())
        for name, text in texts.items()
    ]
    return picture[:header] + b"".join(chunks) + picture[header:]


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
