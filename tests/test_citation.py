"""CITATION.cff: what repositories and reference managers read."""

import re
import tomllib
from pathlib import Path

import pytest

from cab.bibliography.papers import CAB
from cab.version import SUITE_VERSION

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FIELDS = dict(re.findall(r'^([a-z-]+): *"?(.*?)"?$', TEXT, re.MULTILINE))
"""At the top level, in the file's own plain form"""


@pytest.mark.parametrize(
    ("field", "value"),
    [("version", SUITE_VERSION), ("license", PROJECT["license"]),
     ("abstract", PROJECT["description"]), ("cff-version", "1.2.0"), ("type", "software")],
)  # fmt: skip
def test_it_says_what_the_package_says(field, value):
    assert FIELDS[field] == value


def test_nothing_that_the_format_asks_for_is_missing():
    assert {"cff-version", "message", "title", "authors"} <= FIELDS.keys()


def test_keywords_are_those_of_the_package():
    listed = re.search(r"^keywords:\n((?:  - .*\n)+)", TEXT, re.MULTILINE)[1]
    assert re.findall(r"- (.*)", listed) == PROJECT["keywords"]


def test_the_paper_is_the_one_that_cab_cite_prints():
    reference = TEXT[TEXT.index("references:") :]
    names = zip(
        re.findall(r"family-names: (.*)", reference),
        re.findall(r"given-names: (.*)", reference),
        strict=True,
    )
    assert " and ".join(f"{last}, {first}" for last, first in names) == CAB.authors
    assert f'title: "{CAB.title}"' in reference
    assert f"year: {CAB.year}" in reference
    assert f"arxiv.org/abs/{CAB.arxiv}" in reference
