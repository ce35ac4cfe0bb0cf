"""From what an info record says of a paper - ``Qin et al., cosFormer`` and an address - to papers.

A record of anyone has an entry: what is not among the known papers is taken from its own words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from cab.bibliography.papers import PAPERS, Paper
from cab.info import AttentionInfo, TaskInfo

_ARXIV = re.compile(r"arxiv\.org/(?:abs|pdf)/(\d{4}\.\d{4,5})")
_DOI = re.compile(r"doi\.org/(10\.\S+)")
_REMARK = re.compile(r"\s*\([^()]*\)\s*$")
_AUTHORS = re.compile(r"(?P<authors>[^,]*?(?: et al\.?| and [^,]+|)), (?P<title>.+)")


def papers_of(info: AttentionInfo | TaskInfo) -> list[Paper]:
    """The papers that a record names; none where it names none."""
    arxiv, doi = _found(_ARXIV, info.url), _found(_DOI, info.url)
    parts = [_REMARK.sub("", part) for part in info.paper.split("; ") if part.strip()]
    addressed = [p for p in PAPERS if (arxiv and p.arxiv == arxiv) or (doi and p.doi == doi)]
    if len(parts) <= 1 and addressed:
        return addressed
    titled = [_titled(part) for part in parts]
    found = [paper for paper in titled if paper is not None]
    missing = [p for p in addressed if p not in found]
    # An address is that of one paper, so a record of several leaves the others without.
    alone = len(parts) == 1
    found += [
        _of_words(part, info, arxiv if alone else "", doi if alone else "")
        for part, known in zip(parts, titled, strict=True)
        if known is None
    ]
    return list(dict.fromkeys([*found, *missing]))


def _titled(words: str) -> Paper | None:
    """The known paper whose title begins with the words, or with what follows their authors."""
    shape = _AUTHORS.fullmatch(words)
    wanted = _plain(shape["title"] if shape else words)
    near = [p for p in PAPERS if wanted and _plain(p.title).startswith(wanted)]
    return near[0] if len(near) == 1 else None


def _of_words(words: str, info: AttentionInfo | TaskInfo, arxiv: str, doi: str) -> Paper:
    shape = _AUTHORS.fullmatch(words)
    authors, title = (shape["authors"], shape["title"]) if shape else ("", words)
    authors = re.sub(r" et al\.?$", " and others", authors)
    year = info.year if isinstance(info, AttentionInfo) else None
    if year is None and arxiv:
        year = 2000 + int(arxiv[:2])
    address = "" if arxiv or doi else info.url
    return Paper(authors, title, year, arxiv, doi, address)


def _plain(words: Iterable[str]) -> str:
    return "".join(character for character in words if character.isalnum()).casefold()


def _found(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match[1] if match else ""
