"""docs/findings.md: verdicts follow from numbers, and claims speak of things that exist."""

import importlib
import sys
from pathlib import Path

import pandas as pd
import pytest

from cab.patterns import Pattern
from cab.registries import ATTENTIONS, TASKS
from runners.analysis.analyse import ANALYSES

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.fixture(scope="module")
def docs():
    sys.path.insert(0, str(DOCS))
    try:
        names = ("expectations", "claims", "build_findings")
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(DOCS))


def scores(docs, values, higher=False):
    """``{entry: {metric: values by seed}}``; an entry ``@name`` becomes rows of a reference."""
    rows = [
        {
            "entry": "softmax" if entry.startswith("@") else entry,
            "metric": metric + entry if entry.startswith("@") else metric,
            "seed": seed,
            "value": value,
            "higher_is_better": higher,
        }
        for entry, metrics in values.items()
        for metric, by_seed in metrics.items()
        for seed, value in enumerate(by_seed)
    ]
    return docs["expectations"].Scores(pd.DataFrame(rows))


LOW, HIGH, WIDE = [1.0, 1.01, 0.99], [2.0, 2.02, 1.99], [0.2, 1.5, 1.4]


@pytest.mark.parametrize(
    ("one", "other", "higher", "verdict"),
    [
        (LOW, HIGH, False, "HOLDS"),
        (LOW, HIGH, True, "FAILS"),
        (HIGH, LOW, False, "FAILS"),
        (WIDE, LOW, False, "OPEN"),
        ([1.0], [2.0], False, "UNKNOWN"),
    ],
)
def test_better(docs, one, other, higher, verdict):
    found = scores(docs, {"a": {"m": one}, "b": {"m": other}}, higher)
    judged = docs["expectations"].Better("a", "b", "m").judge(found)
    assert judged.verdict is docs["expectations"].Verdict[verdict]
    with_reference = scores(docs, {"a": {"m": one}, "@b": {"m": other}}, higher)
    judged = docs["expectations"].Better("a", "@b", "m").judge(with_reference)
    assert judged.verdict is docs["expectations"].Verdict[verdict]


def test_a_finding_without_scores_of_todays_code_says_so(docs, monkeypatch):
    build = docs["build_findings"]
    nothing = docs["expectations"].Scores(pd.DataFrame({"metric": [], "entry": []}))
    monkeypatch.setattr(build, "scores_of", lambda finding, results: nothing)
    finding = docs["claims"].FINDINGS[0]
    assert build.judgements(finding, None) == []
    text = build._section(finding, [], None)
    assert finding.command() in text
    assert text.endswith(f"{build.NOT_MEASURED}\n")


def test_what_was_not_measured_is_not_judged(docs):
    found = scores(docs, {"a": {"m": LOW}})
    unknown = docs["expectations"].Verdict.UNKNOWN
    kinds = docs["expectations"]
    for expectation in (
        kinds.Better("a", "b", "m"),
        kinds.Within("a", "b", "m", 1.0),
        kinds.Reaches("b", "m", 1.0),
        kinds.Improves("b", "m", "m"),
        kinds.LosesMore("a", "b", "m", "m"),
        kinds.RatioGrows("a", "b", "m", "m"),
    ):
        assert expectation.judge(found).verdict is unknown, expectation


@pytest.mark.parametrize(("margin", "verdict"), [(2.0, "HOLDS"), (0.5, "FAILS"), (1.0, "OPEN")])
def test_within(docs, margin, verdict):
    found = scores(docs, {"a": {"m": LOW}, "b": {"m": HIGH}})
    judged = docs["expectations"].Within("a", "b", "m", margin).judge(found)
    assert judged.verdict is docs["expectations"].Verdict[verdict]


@pytest.mark.parametrize(
    ("bound", "higher", "verdict"),
    [(0.5, True, "HOLDS"), (1.5, True, "FAILS"), (1.5, False, "HOLDS"), (1.0, True, "OPEN")],
)
def test_reaches(docs, bound, higher, verdict):
    found = scores(docs, {"a": {"m": LOW}}, higher)
    judged = docs["expectations"].Reaches("a", "m", bound).judge(found)
    assert judged.verdict is docs["expectations"].Verdict[verdict]


def test_from_an_easy_to_a_hard_metric(docs):
    kinds = docs["expectations"]
    accuracy = scores(
        docs,
        {"a": {"easy": [0.9, 0.91, 0.9], "hard": [0.2, 0.2, 0.21]},
         "b": {"easy": [1.0, 0.99, 1.0], "hard": [0.9, 0.9, 0.91]}},
        higher=True,
    )  # fmt: skip
    assert kinds.LosesMore("a", "b", "easy", "hard").judge(accuracy).verdict is kinds.Verdict.HOLDS
    assert kinds.LosesMore("b", "a", "easy", "hard").judge(accuracy).verdict is kinds.Verdict.FAILS
    assert kinds.Improves("a", "hard", "easy").judge(accuracy).verdict is kinds.Verdict.HOLDS
    error = scores(
        docs,
        {"a": {"easy": [0.1, 0.11, 0.1], "hard": [0.2, 0.21, 0.2]},
         "b": {"easy": [0.2, 0.21, 0.2], "hard": [0.8, 0.81, 0.8]}},
    )  # fmt: skip
    assert kinds.LosesMore("b", "a", "easy", "hard").judge(error).verdict is kinds.Verdict.HOLDS
    assert kinds.RatioGrows("a", "b", "easy", "hard").judge(error).verdict is kinds.Verdict.HOLDS
    assert kinds.RatioGrows("a", "b", "hard", "easy").judge(error).verdict is kinds.Verdict.FAILS


def test_claims_speak_of_registered_things(docs):
    analyses = {analysis.name for analysis in ANALYSES}
    for finding in docs["claims"].FINDINGS:
        info = TASKS.resolve(finding.task).info
        pattern = Pattern.parse(finding.pattern)
        assert pattern in info.backbones, finding.title
        metrics = {metric.name for metric in info.metrics} | analyses
        references = {f"@{reference.name}" for reference in info.references}
        assert set(finding.metrics) <= metrics, finding.title
        assert set(finding.references) <= references, finding.title
        for entry in finding.entries:
            assert ATTENTIONS.resolve(entry).info.grade(pattern) is not None, finding.title
        for expectation in finding.expectations:
            for name, value in vars(expectation).items():
                if name in ("one", "other", "entry"):
                    assert value in {*finding.entries, *references}, (finding.title, value)
                elif isinstance(value, str):
                    assert value in metrics, (finding.title, value)


def test_titles_differ(docs):
    titles = [finding.title for finding in docs["claims"].FINDINGS]
    assert len(set(titles)) == len(titles)
