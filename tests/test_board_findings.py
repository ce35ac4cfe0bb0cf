"""What docs/findings.md says of boards: verdicts follow from standings, and claims speak of
mechanisms that serve the pattern.
"""

import importlib
import sys
from pathlib import Path

import pytest

from cab.patterns import Pattern
from cab.registries import ATTENTIONS
from cab.schema import table_of
from cab.scoring.quality import quality_board
from cab.scoring.results import current
from cab.track import Track
from tests.scoring.test_scoring import rows_of

DOCS = Path(__file__).resolve().parent.parent / "docs"
CS = Pattern.CAUSAL_SELF
TASKS = "uvwxyz"


@pytest.fixture(scope="module")
def docs():
    sys.path.insert(0, str(DOCS))
    try:
        names = ("expectations", "board_expectations", "board_claims", "board_findings")
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(DOCS))


def boards(docs, gains, seeds=3):
    """Of log-ratios to softmax by entry; a list is by task, one number is the same on all."""
    values = {}
    for entry, gain in {"softmax": 0.0, "none": -2.0, **gains}.items():
        for number, task in enumerate(TASKS):
            here = gain[number] if isinstance(gain, list) else gain
            noise = [1.0, 1.001, 0.999][:seeds]
            wobble = 1 + 0.001 * number * (entry != "softmax")
            values[entry, task] = [2.718281828**-here * n * wobble for n in noise]
    results = current(table_of(rows_of(values)).to_pandas(), defaults={})
    found = quality_board(
        results, Track("causal-self", "tiny", "cpu"), {t: ["loss"] for t in TASKS}
    )
    made = docs["board_expectations"].Boards(results)
    made.__dict__["by_pattern"] = dict.fromkeys(Pattern, found)
    return made


SPLIT = [0.3, 0.3, -0.1, -0.1, 0.3, -0.2]
"""Better on these tasks; others may swap the two"""


@pytest.mark.parametrize(
    ("gain", "seeds", "verdict"),
    [
        (0.2, 3, "HOLDS"),
        (0.2, 1, "HOLDS"),
        (-0.2, 3, "FAILS"),
        (SPLIT, 3, "HOLDS_HERE"),
        ([-x for x in SPLIT], 3, "FAILS_HERE"),
        (SPLIT, 1, "OPEN"),
    ],
)
def test_ahead(docs, gain, seeds, verdict):
    found = boards(docs, {"a": gain}, seeds)
    judged = docs["board_expectations"].Ahead("a", "softmax", CS).judge(found)
    assert judged.verdict is docs["expectations"].Verdict[verdict]
    assert ("on these tasks" in judged.evidence) == (seeds > 1)
    assert "in general" in judged.evidence


@pytest.mark.parametrize(
    ("gain", "seeds", "verdict"),
    [
        (0.01, 3, "HOLDS"),
        (0.2, 3, "FAILS"),
        (SPLIT, 3, "FAILS_HERE"),
        ([0.04] * 3 + [0.06] * 3, 1, "OPEN"),
    ],
)
def test_near(docs, gain, seeds, verdict):
    found = boards(docs, {"a": gain}, seeds)
    judged = docs["board_expectations"].Near("a", "softmax", CS).judge(found)
    assert judged.verdict is docs["expectations"].Verdict[verdict], judged


@pytest.mark.parametrize(
    ("entry", "verdict"), [("a", "HOLDS"), ("b", "FAILS"), ("softmax", "FAILS")]
)
def test_leads(docs, entry, verdict):
    found = boards(docs, {"a": 0.4, "b": 0.2})
    judged = docs["board_expectations"].Leads(entry, CS).judge(found)
    assert judged.verdict is docs["expectations"].Verdict[verdict]
    assert "of 4" in judged.evidence


def test_leads_on_these_tasks_alone(docs):
    judged = docs["board_expectations"].Leads("a", CS).judge(boards(docs, {"a": SPLIT}))
    assert judged.verdict is docs["expectations"].Verdict.HOLDS_HERE


def test_rankings_carry_over_where_they_agree_and_controls_do_not_make_them(docs):
    kinds, verdicts = docs["board_expectations"], docs["expectations"].Verdict
    gains = {name: 0.1 * n for n, name in enumerate("abcdef")}
    up, down = (boards(docs, {n: sign * g for n, g in gains.items()}) for sign in (1, -1))
    both = kinds.Boards(None)
    for other, verdict in ((up, verdicts.HOLDS), (down, verdicts.FAILS)):
        both.__dict__["by_pattern"] = {
            CS: up.by_pattern[CS], Pattern.CAUSAL_CROSS: other.by_pattern[CS]
        }  # fmt: skip
        judged = kinds.Carries(CS, Pattern.CAUSAL_CROSS).judge(both)
        # softmax is a mechanism, none is not
        assert "n = 7" in judged.evidence
        assert judged.verdict is verdict
    few = kinds.Carries(CS, Pattern.CAUSAL_CROSS).judge(boards(docs, {"a": 0.1}))
    assert few.verdict is verdicts.UNKNOWN


def test_what_has_no_index_is_not_judged(docs):
    kinds, found = docs["board_expectations"], boards(docs, {"a": 0.1})
    for expectation in (
        kinds.Ahead("b", "a", CS), kinds.Near("a", "b", CS), kinds.Leads("b", CS),
        kinds.AsPublished(CS),
    ):  # fmt: skip
        assert expectation.judge(found).verdict is docs["expectations"].Verdict.UNKNOWN


def test_claims_speak_of_mechanisms_that_serve_the_pattern(docs):
    kinds = docs["board_expectations"]
    for finding in docs["board_claims"].BOARD_FINDINGS:
        assert finding.expectations
        for expectation in finding.expectations:
            names = [
                getattr(expectation, name)
                for name in ("one", "other", "entry")
                if hasattr(expectation, name)
            ]
            for name in names:
                entry = ATTENTIONS.listed(name)
                assert entry is not None, name
                assert entry.info.grade(expectation.pattern) is not None, expectation
    for name in kinds.PUBLISHED.values():
        assert ATTENTIONS.listed(name) is not None


def test_the_page_shows_what_is_measured_and_names_what_is_not(docs, monkeypatch):
    module = docs["board_findings"]
    found = boards(docs, {"lla": 0.3, "linear-elu": -0.1})
    monkeypatch.setattr(module, "Boards", lambda results: found)
    monkeypatch.setattr(module, "_relative_costs", lambda results, pattern: {"lla": 2.0})
    text = "\n".join(module.sections(None))
    assert "CS: `lla` is ahead of `softmax` | +0.298" in text
    assert "| CC | u | -2.0" in text
    line = next(x for x in text.splitlines() if x.startswith("| CS | `lla` |"))
    assert line.endswith("| - | 2.00x |")
    assert "Not measured yet: " in text
    assert "cosFormer" in text.split("###")[0]
