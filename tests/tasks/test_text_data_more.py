"""The speeches and the novel: whole, clean, and split without leaks."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.data.embedded import SPLITS, dataset

SHAPES = {"state-of-the-union": 233, "moby-dick": 138}


def runs(text: str, length: int) -> NDArray[np.uint64]:
    """Hashes of the runs of that many words."""
    words = np.array([hash(word) for word in re.findall(r"\w+", text.lower())]).astype(np.uint64)
    total = np.zeros(max(len(words) - length + 1, 0), np.uint64)
    for offset in range(length):
        total = total * np.uint64(0x9E3779B97F4A7C15) + words[offset : offset + len(total)]
    return total


@pytest.mark.parametrize("name", SHAPES)
def test_file_is_the_one_of_the_manifest(name: str) -> None:
    data = dataset(name)
    table = data.table()  # verifies the SHA-256
    assert table.num_rows == data.rows == SHAPES[name]
    assert table.column_names == list(data.columns) == ["id", "author", "title", "text"]
    assert (
        table["id"].combine_chunks().value_counts().field("counts").to_pylist() == [1] * data.rows
    )
    assert all(column.null_count == 0 for column in table.columns)


def test_both_are_small() -> None:
    assert sum(dataset(name).bytes for name in SHAPES) < 4_500_000


@pytest.mark.parametrize("name", SHAPES)
def test_splits_are_disjoint_and_cover_the_documents(name: str) -> None:
    data = dataset(name)
    members = [member for split in SPLITS for member in data.split(split)]
    assert sorted(members) == sorted(data.table()[data.id_column].unique().to_pylist())
    parts = [data.select(split) for split in SPLITS]
    assert sum(part.num_rows for part in parts) == data.rows
    lengths = [sum(map(len, part["text"].to_pylist())) for part in parts]
    for length in lengths[1:]:
        assert 0.07 < length / sum(lengths) < 0.09


@pytest.mark.parametrize("name", SHAPES)
def test_no_passage_stands_in_two_splits(name: str) -> None:
    """A run of 30 words in common would be a copied passage; of 12 a formula or a quotation."""
    data = dataset(name)
    for length, allowed in ((30, 0.0), (12, 0.002)):
        seen = {}
        for split in SPLITS:
            texts = data.select(split)["text"].to_pylist()
            seen[split] = np.sort(np.concatenate([runs(text, length) for text in texts]))
        for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
            place = np.searchsorted(seen[one], seen[other]).clip(max=len(seen[one]) - 1)
            common = seen[one][place] == seen[other]
            assert common.mean() <= allowed, (length, one, other)


@pytest.mark.parametrize("name", SHAPES)
def test_text_is_clean(name: str) -> None:
    texts = dataset(name).table()["text"].to_pylist()
    assert all(text == text.strip() for text in texts)
    text = "\n".join(texts)
    unwanted = {
        "markup": r"</?[a-zA-Z][^>]*>|<!--|&[a-z]+;|&#",
        "mojibake": "\N{REPLACEMENT CHARACTER}|Ã|â€",
        "control characters": r"[\x00-\x09\x0b-\x1f\x7f-\x9f]",
        "rules": r"_{4}|-{8}",
        "boilerplate": r"(?i:gutenberg|\be-?text\b|www\.|copyright \(c\))",
        "loose white space": r" \n|\n | {2}|\n{3}|\N{NO-BREAK SPACE}",
    }
    for what, pattern in unwanted.items():
        found = re.search(pattern, text)
        assert found is None, (what, text[found.start() - 20 : found.end() + 20])


def test_speeches_are_the_ones_they_claim_to_be() -> None:
    speeches = {row["id"]: row for row in dataset("state-of-the-union").table().to_pylist()}
    lincoln = speeches["1862-abraham-lincoln"]
    assert lincoln["title"] == "State of the Union, 1862"
    assert "The dogmas of the quiet past are inadequate to the stormy present" in lincoln["text"]
    assert speeches["1790-george-washington"]["text"].startswith("Fellow-Citizens of the Senate")
    per_president = Counter(row["author"] for row in speeches.values())
    assert len(per_president) == 43
    assert per_president["William McKinley"] == 4
    assert all("\n" not in row["text"] for row in speeches.values())


def test_chapters_are_in_the_order_of_the_book() -> None:
    data = dataset("moby-dick")
    chapters = data.table().to_pylist()
    assert chapters[2]["id"] == "chapter-1"
    assert chapters[2]["title"] == "Loomings."
    assert chapters[2]["text"].startswith("CHAPTER 1. Loomings.\n\nCall me Ishmael.")
    assert [row["id"] for row in chapters] == [i for split in SPLITS for i in data.split(split)]
    assert data.split("test")[-1] == "epilogue"
