"""The embedded data at the published lengths: what is said of a country, and its background.

About 3,000 words of fields and a paragraph of 280, written by people, against the 2,100 and 260 of
Multi-News: enough to run the published setting, and far too few countries to train it. Most of a
paragraph is history, which the fields do not hold.
"""

from __future__ import annotations

from collections.abc import Iterator

from tasks.data.embedded import dataset
from tasks.summarization.countries import DATASET
from tasks.summarization.pairs import TextPair

BACKGROUND = "Background"


def read_backgrounds(split: str) -> Iterator[TextPair]:
    """The pairs of a split; a country without the paragraph is left out.

    Raises:
        DataError: the embedded file is missing or altered.
    """
    countries: dict[str, dict[str, str]] = {}
    rows = dataset(DATASET).select(split).select(["country", "section", "field", "text"])
    for row in rows.to_pylist():
        # Two sections have a field of the same name here and there.
        name = row["field"] if row["field"] == BACKGROUND else f"{row['section']}: {row['field']}"
        countries.setdefault(row["country"], {})[name] = row["text"]
    for country, fields in countries.items():
        background = fields.pop(BACKGROUND, "")
        if background:
            source = "\n".join(f"{name}: {text}" for name, text in fields.items())
            yield TextPair(country, source, background)
