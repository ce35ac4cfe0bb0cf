"""Entries as BibTeX in plain ASCII, for classic BibTeX and biber alike."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cab.bibliography.papers import Paper
from cab.sheets.naming import distinct, slug
from cab.tex import escaped
from cab.visible import visible

_SMALL = {"a", "an", "the", "on", "of", "in", "for", "to", "is", "are"}
"""Words that a key does not take"""
_TYPED = {"url", "eprint", "archiveprefix", "doi", "year", "key"}
"""Fields whose words are read by programs"""


@dataclass(frozen=True)
class Entry:
    """One entry, with what it is cited for."""

    kind: str
    """``article``, ``inproceedings``, ``misc``"""
    key: str
    fields: Mapping[str, str]
    why: tuple[str, ...] = ()
    """Ids that it stands for"""


def entry_of(paper: Paper, why: Iterable[str] = ()) -> Entry:
    """A paper under a key of first author, year and title: ``qin2022cosformer``."""
    kind = "inproceedings" if paper.proceedings else "article" if paper.journal else "misc"
    last = paper.authors.partition(" and ")[0].partition(",")[0]
    words = [word for word in slug(paper.title).split("-") if word not in _SMALL]
    key = f"{slug(last).replace('-', '') if last else ''}{paper.year or ''}{words[0]}"
    url = f"https://arxiv.org/abs/{paper.arxiv}" if paper.arxiv else paper.url
    fields = {
        "author": paper.authors,
        "title": paper.title,
        "booktitle": paper.proceedings,
        "journal": paper.journal,
        # Classic styles print neither eprint nor url.
        "howpublished": f"arXiv:{paper.arxiv}" if paper.arxiv and kind == "misc" else "",
        "year": str(paper.year or ""),
        "eprint": paper.arxiv,
        "archiveprefix": "arXiv" if paper.arxiv else "",
        "doi": paper.doi,
        "url": "" if paper.doi else url,
    }
    return Entry(kind, key, fields, tuple(why))


def to_bibtex(entries: Iterable[Entry], remarks: Iterable[str] = ()) -> str:
    """The entries, each below what it is cited for; keys that are alike get numbers.

    Args:
        entries: in their order.
        remarks: what a reader must know, as comments at the end.
    """
    wanted = list(entries)
    keys = distinct(entry.key for entry in wanted)
    parts = [_written(entry, key) for entry, key in zip(wanted, keys, strict=True)]
    comments = [_comment(remark) for remark in remarks]
    return "\n\n".join([*parts, *(["\n".join(comments)] if comments else [])]) + "\n"


def _written(entry: Entry, key: str) -> str:
    why = [_comment(", ".join(entry.why))] if entry.why else []
    width = max(len(name) for name, words in entry.fields.items() if words)
    fields = [
        f"  {name:<{width}} = {{{_field(name, words)}}},"
        for name, words in entry.fields.items()
        if words
    ]
    return "\n".join([*why, f"@{entry.kind}{{{key},", *fields, "}"])


def _comment(words: str) -> str:
    """What stands outside of entries is read by nobody, as long as it has no @."""
    text = visible(" ".join(words.split())).replace("@", "(at)")
    return f"% {text.encode('ascii', 'backslashreplace').decode()}"


def _field(name: str, words: str) -> str:
    if name in _TYPED:
        return "".join(c for c in words if c.isascii() and c.isprintable() and c not in "{}\\ ")
    if name == "author":
        return " and ".join(_author(author) for author in words.split(" and "))
    # Styles would make small letters of a title's capitals.
    return f"{{{_words(words)}}}" if name == "title" else _words(words)


def _author(words: str) -> str:
    """A name; one of several words without a comma is an institution, which has no first name."""
    whole = " " in words and "," not in words
    return f"{{{_words(words)}}}" if whole else _words(words)


def _words(text: str) -> str:
    """Text for LaTeX in which braces are in pairs, which is all that BibTeX counts."""
    parts = []
    text = unicodedata.normalize("NFC", " ".join(text.split()))
    for character in text:
        if character == "{":
            parts.append(r"\textbraceleft{}")
        elif character == "}":
            parts.append(r"\textbraceright{}")
        elif character == " ":
            parts.append(" ")
        elif character.isascii():
            parts.append(escaped(character))
        else:
            parts.append(f"{{{escaped(character)}}}")
    return "".join(parts)
