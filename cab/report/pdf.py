"""Title and subject of a PDF, written behind its end as the format provides for changes."""

from __future__ import annotations

import re

_START = re.compile(rb"startxref\s+(\d+)\s+%%EOF\s*$")
_TRAILER = re.compile(rb"trailer\s*<<(.*?)>>", re.DOTALL)
_SIZE = re.compile(rb"/Size\s+(\d+)")
_ROOT = re.compile(rb"/Root\s+(\d+ \d+ R)")


def with_info(document: bytes, title: str, subject: str, creator: str) -> bytes:
    """The document with these fields in place of its own.

    Args:
        document: a PDF with a plain table of cross references, as svg2pdf writes.
        title: shown as the name of the window.
        subject: shown among the document's properties.
        creator: the program.

    Raises:
        ValueError: it is no such PDF.
    """
    start = _START.search(document)
    if start is None:
        raise ValueError("no end of a PDF")
    trailer = _TRAILER.search(document, int(start[1]))
    size = _SIZE.search(trailer[1]) if trailer else None
    root = _ROOT.search(trailer[1]) if trailer else None
    if size is None or root is None:
        raise ValueError("no trailer of a PDF with a plain table of cross references")
    number = int(size[1])
    body = document if document.endswith(b"\n") else document + b"\n"
    fields = {"Title": title, "Subject": subject, "Creator": creator}
    words = "".join(f"  /{name} {_text(text)}\n" for name, text in fields.items())
    new = f"{number} 0 obj\n<<\n{words}>>\nendobj\n".encode("ascii")
    end = (
        f"xref\n{number} 1\n{len(body):010d} 00000 n\r\n"
        f"trailer\n<<\n  /Size {number + 1}\n  /Root {root[1].decode()}\n  /Info {number} 0 R\n"
        f"  /Prev {int(start[1])}\n>>\nstartxref\n{len(body) + len(new)}\n%%EOF\n"
    ).encode("ascii")
    return body + new + end


def _text(text: str) -> str:
    """Any text as a string of a PDF: UTF-16 with its mark, in hexadecimal digits."""
    return f"<{(chr(0xFEFF) + text).encode('utf-16-be', 'replace').hex().upper()}>"
