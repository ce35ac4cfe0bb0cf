"""The embedded data: countries of the World Factbook as fields, with a template summary."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from tasks.data.embedded import SPLITS, dataset
from tasks.summarization import target
from tasks.summarization.pairs import Pair, Splits
from tasks.summarization.words import words

DATASET = "world-factbook"

LONG_NAME = "Country name: conventional long form"

FIELDS = (
    target.NAME,
    target.GOVERNMENT,
    target.LOCATION,
    target.CAPITAL,
    target.BORDERS,
    target.LANGUAGES,
    target.PARTNERS,
    target.CHIEF,
    target.COMMODITIES,
    "Nationality: adjective",
    "Religions",
    "Independence",
    LONG_NAME,
    "Country name: local long form",
)
"""Fields of the source. The last five are not asked for; a model must learn to pass them over."""


def read_countries(*, field_words: int, target_words: int) -> Splits:
    """Pairs of the embedded splits; a country that lacks a required field is left out.

    Args:
        field_words: words kept of each field.
        target_words: words kept of the summary.

    Raises:
        DataError: the embedded file is missing or altered.
    """
    data = dataset(DATASET)
    splits: Splits = {}
    for split in SPLITS:
        texts: dict[str, dict[str, str]] = {}
        rows = data.select(split)
        rows = rows.filter(pc.is_in(rows["field"], value_set=pa.array(FIELDS)))
        for row in rows.select(["country", "field", "text"]).to_pylist():
            texts.setdefault(row["country"], {})[row["field"]] = row["text"]
        pairs = (
            country_pair(country, fields, field_words, target_words)
            for country, fields in texts.items()
        )
        splits[split] = [pair for pair in pairs if pair is not None]
    return splits


def hash_countries() -> str:
    """SHA-256 of the embedded file."""
    return dataset(DATASET).data_hash


def country_pair(
    country: str, texts: Mapping[str, str], field_words: int, target_words: int
) -> Pair | None:
    """The pair of one country's field texts, or None where a required field is missing."""
    fields = {name: words(texts[name], field_words) for name in FIELDS if name in texts}
    if fields.get(target.NAME) == ["none"] and LONG_NAME in fields:
        fields[target.NAME] = fields[LONG_NAME]
    if not all(fields.get(name) for name in target.REQUIRED):
        return None
    return Pair(country, fields, target.summary(fields, target_words))
