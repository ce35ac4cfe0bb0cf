"""docs/papers.md: what it names exists, and what is registered with a paper is on it."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.main import get_command

from cab.analysis import Analysis
from cab.cli.app import app
from cab.info import Kind
from cab.registries import ATTENTIONS, TASKS
from runners.analysis import evidence
from runners.analysis.analyse import ANALYSES
from tasks.in_context_regression import linear_structure

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
SOURCES = 39
"""Papers that the suite began from: the rows of all tables but the last"""
ENTRIES = {
    entry.info.id: entry.info
    for entry in ATTENTIONS.entries().values()
    if entry.target.startswith("attentions.")
}
WORKS = {
    entry.info.id: entry.info
    for entry in TASKS.entries().values()
    if entry.target.startswith("tasks.")
}
KINDS = {
    "attention": {name for name, info in ENTRIES.items() if info.kind is not Kind.MODIFIER},
    "modifier": {name for name, info in ENTRIES.items() if info.kind is Kind.MODIFIER},
    "task": {name for name, info in WORKS.items() if not info.probe},
    "probe": {name for name, info in WORKS.items() if info.probe},
    "analysis": {
        analysis.name
        for analysis in (*ANALYSES, *vars(linear_structure).values())
        if isinstance(analysis, Analysis)
    }
    | {evidence.PLAIN, evidence.CONTRASTED},
    "option": {name for x in get_command(app).commands["run"].params for name in x.opts},
    "preset": {preset for info in ENTRIES.values() for preset in info.presets},
}


_SINGULAR = {f"{kind}s": kind for kind in KINDS} | {"analyses": "analysis"}


@dataclass(frozen=True)
class Row:
    """One paper."""

    paper: str
    url: str
    carried_by: tuple[tuple[str, str], ...]
    """Kind and id"""
    reason: str


def rows(text):
    """Of every table in a text."""
    found = []
    for line in text.splitlines():
        if not line.startswith("| ") or line.startswith("| paper"):
            continue
        paper, carried, *rest = (cell.strip() for cell in line.strip("|").split("|"))
        (url,) = re.findall(r"\]\((https://[^)]+)\)", paper)
        named = []
        for kind, ids in re.findall(
            r"\b([a-z]+) (`[^`]+`(?:(?:,| and)[^`;]*? ?`[^`]+`)*)", carried
        ):
            singular = _SINGULAR.get(kind, kind)
            named += [(singular, name) for name in re.findall(r"`([^`]+)`", ids)]
        found.append(Row(paper, url, tuple(named), " ".join(rest)))
    return found


PARTS = re.split(r"^## ", TEXT, flags=re.MULTILINE)
ROWS = rows(TEXT)


def test_every_source_has_its_row():
    sources = rows("\n".join(PARTS[:-1]))
    assert len({row.url for row in sources}) == len(sources) == SOURCES


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.url.rsplit("/", 1)[-1])
def test_what_a_row_names_exists(row):
    for kind, name in row.carried_by:
        assert name in KINDS[kind], f"{row.paper}: there is no {kind} {name}"
    assert row.carried_by or row.reason, f"{row.paper}: neither an entry nor a reason"


def test_no_id_of_a_row_is_missed():
    for row, line in zip(ROWS, [li for li in TEXT.splitlines() if "](http" in li], strict=True):
        written = re.findall(r"`([^`]+)`", line.strip("|").split("|")[1])
        assert [name for _, name in row.carried_by] == written, row.paper


@pytest.mark.parametrize("name", [n for n, i in {**ENTRIES, **WORKS}.items() if i.url])
def test_what_is_registered_with_a_paper_is_on_the_page_with_it(name):
    info = ENTRIES.get(name) or WORKS[name]
    named = [row for row in ROWS if name in {n for _, n in row.carried_by}]
    assert info.url in {row.url for row in named}, f"{name} is not in the row of {info.url}"
