"""BibTeX that parsers and LaTeX take, whatever records hold; and the papers that are known."""

from __future__ import annotations

import re
import shutil
import subprocess
import warnings

import pytest

from cab.bibliography.bibtex import entry_of, to_bibtex
from cab.bibliography.papers import CAB, PAPERS, Paper
from cab.bibliography.records import papers_of
from cab.info import AttentionInfo, Grade, TaskInfo
from cab.patterns import Pattern
from cab.registries import ATTENTIONS, TASKS

HOSTILE = (
    "{", "}", "}}}{{{", r"\input{x}", "50 % & a_b #1 $x$", "@misc{x, title={y}}", "a\nb \x1b\u202e",
    "\"quoted\"", "中文", "Nyström–Š", "~^", "[x]*",
)  # fmt: skip


def parsed(text: str) -> dict[str, dict[str, str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pyparsing's older names
        import bibtexparser
        from bibtexparser.bparser import BibTexParser

        parser = BibTexParser(common_strings=False, ignore_nonstandard_types=False)
        found = bibtexparser.loads(text, parser)
    assert len(found.entries) == len(re.findall(r"^@", text, re.MULTILINE))
    return {entry["ID"]: entry for entry in found.entries}


def attention(paper: str, url: str = "", year: int | None = None) -> AttentionInfo:
    return AttentionInfo(
        id="mine", title="", formula="", patterns={Pattern.CAUSAL_SELF: Grade.FAITHFUL}, time="",
        memory="", paper=paper, url=url, year=year,
    )  # fmt: skip


def balanced(text: str) -> bool:
    depth = 0
    for character in text:
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return False
    return depth == 0


def test_every_known_paper_is_an_entry_of_its_own() -> None:
    text = to_bibtex(entry_of(paper) for paper in PAPERS)
    found = parsed(text)
    assert len(found) == len(PAPERS)
    assert text.isascii()
    for paper in PAPERS:
        assert paper.arxiv or paper.doi
        entry = found[entry_of(paper).key]
        assert entry["year"] == str(paper.year)
        assert entry.get("eprint", "") == paper.arxiv
        # A preprint is no younger than the paper.
        assert not paper.arxiv or 2000 + int(paper.arxiv[:2]) <= (paper.year or 0)


@pytest.mark.parametrize("name", ["arxiv", "doi", "title"])
def test_no_paper_is_there_twice(name) -> None:
    values = [getattr(paper, name) for paper in PAPERS if getattr(paper, name)]
    assert len(values) == len(set(values))


@pytest.mark.parametrize("info", [*ATTENTIONS.infos(), *TASKS.infos()], ids=lambda info: info.id)
def test_every_record_with_a_paper_has_an_entry_of_its_authors(info) -> None:
    found = papers_of(info)
    assert bool(found) == bool(info.paper)
    for paper in found:
        assert paper.title
        assert re.split(",| and ", paper.authors)[0] in info.paper
    # CAB's numbers are of its preprint, and the paper came out a year later.
    if isinstance(info, AttentionInfo) and info.paper and found != [CAB]:
        assert [paper.year for paper in found] == [info.year]


def test_all_papers_that_are_known_are_of_some_record() -> None:
    infos = [*ATTENTIONS.infos(), *TASKS.infos()]
    named = {paper for info in infos for paper in papers_of(info)}
    assert set(PAPERS) <= named


def test_several_papers_of_a_record_are_several_entries() -> None:
    found = papers_of(TASKS.entries()["upsampling"].info)
    assert [paper.authors.partition(",")[0] for paper in found] == ["Chen", "Liu"]


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (attention("Doe et al., A Title, with a comma", "https://arxiv.org/abs/2401.00001"),
         Paper("Doe and others", "A Title, with a comma", 2024, "2401.00001")),
        (attention("Doe and Roe, A Title", "https://doi.org/10.1/x", 2020),
         Paper("Doe and Roe", "A Title", 2020, doi="10.1/x")),
        (attention("A Title", "https://example.org/p", 2021),
         Paper("", "A Title", 2021, url="https://example.org/p")),
        (attention("Doe et al., A Title (remark)"), Paper("Doe and others", "A Title", None)),
    ],
)  # fmt: skip
def test_a_record_of_anyone_is_taken_at_its_word(info, expected) -> None:
    assert papers_of(info) == [expected]


def test_a_record_without_a_paper_has_none() -> None:
    assert papers_of(attention("")) == []


def test_a_known_address_counts_more_than_the_words() -> None:
    assert papers_of(attention("our own idea", "https://arxiv.org/pdf/2210.07661v2")) == [CAB]


def test_a_title_that_is_two_papers_is_neither() -> None:
    info = TaskInfo(id="t", title="", description="", backbones={}, metrics=(), scales=(),
                    dataset="", paper="Zhang et al., A")  # fmt: skip
    assert papers_of(info) == [Paper("Zhang and others", "A", None)]


@pytest.mark.parametrize("words", HOSTILE)
def test_what_records_hold_cannot_break_the_file(words) -> None:
    papers = [Paper(words, words, 2020, words, words, words, words), Paper("Doe", "A Title", 2020)]
    text = to_bibtex((entry_of(paper, [words]) for paper in papers), [words])
    assert text.isascii()
    found = parsed(text)
    assert len(found) == 2
    assert found["doe2020title"]["author"] == "Doe"
    assert all(balanced(value) for entry in found.values() for value in entry.values())


def test_alike_keys_get_numbers() -> None:
    papers = [Paper("Doe, J.", "The Title", 2020), Paper("Doe, K.", "Title again", 2020)]
    assert list(parsed(to_bibtex(map(entry_of, papers)))) == ["doe2020title", "doe2020title-2"]


@pytest.mark.skipif(
    not (shutil.which("pdflatex") and shutil.which("bibtex")), reason="no pdflatex, or no bibtex"
)
def test_latex_makes_a_bibliography_of_it(tmp_path) -> None:
    odd = [Paper(words, words, 2020, url=words) for words in HOSTILE]
    (tmp_path / "all.bib").write_text(to_bibtex(map(entry_of, [*PAPERS, *odd])))
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\\begin{document}\\nocite{*}\\bibliographystyle{plain}"
        "\\bibliography{all}\\end{document}"
    )
    latex = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper"]
    for command in (latex, ["bibtex", "paper"], latex):
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, errors="replace"
        )
        assert done.returncode == 0, done.stdout[-1500:]
    listed = (tmp_path / "paper.bbl").read_text()
    assert listed.count(r"\bibitem") == len(PAPERS) + len(odd)
