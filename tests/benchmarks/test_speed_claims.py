"""Claims of speed and of growth: what they speak of exists, and verdicts follow from seconds."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

import cab
from benchmarks.attentions.exponents import Claim, Found, claims
from benchmarks.attentions.plain import neighborhood
from benchmarks.attentions.sparse_speed import MOST, SETTINGS
from benchmarks.attentions.speed_claims import CLAIMS, prepare
from cab.patterns import Pattern

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"


@pytest.fixture(scope="module")
def page():
    sys.path.insert(0, str(DOCS))
    try:
        yield importlib.import_module("build_speed")
    finally:
        sys.path.remove(str(DOCS))


@pytest.mark.parametrize("pattern", ["noncausal-self", "causal-self"])
@pytest.mark.parametrize("window", [7, 8, 40])
def test_the_naive_neighbourhood_computes_the_same(pattern, window):
    torch.manual_seed(0)
    module = cab.attention(
        "neighborhood", pattern=Pattern.parse(pattern), heads=2, head_dim=4, window=window
    )
    q, k, v = torch.randn(3, 1, 2, 40, 4, dtype=torch.float64)
    want = module.reference(q, k, v)
    assert torch.allclose(neighborhood.attend(module, q, k, v), want, atol=1e-12)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_both_sides_of_a_claim_can_be_called(claim):
    for contender in ("entry", getattr(claim, "baseline", "entry")):
        out = prepare(claim, contender, 300)()()
        assert out.shape == (1, 1, 300, 64)
        assert out.isfinite().all()


def test_what_is_stored_is_what_is_claimed():
    stored = json.loads((DOCS / "speed.json").read_text(encoding="utf-8"))
    assert stored.keys() == {claim.name for claim in CLAIMS}
    for claim in CLAIMS:
        for key, value in vars(claim).items():
            kept = stored[claim.name][key]
            assert (tuple(kept) if isinstance(value, tuple) else kept) == value, (claim.name, key)


def test_what_is_stored_of_sparse_mechanisms_is_what_is_compared(page):
    stored = json.loads((DOCS / "sparse_speed.json").read_text(encoding="utf-8"))
    assert {n: (x["entry"], x["pattern"], x["options"]) for n, x in stored.items()} == SETTINGS
    assert all(x["density"] is None or 0 < x["density"] <= MOST for x in stored.values())
    assert all(len(x["seconds"]) == len(x["softmax"]) > 2 for x in stored.values())
    # What is not twice as fast has a reason.
    seconds = {"softmax": [1.0, 1.0, 1.1], "length": 8192, "density": 0.1, "options": {}}
    slow = {"entry": "superlinear", "pattern": "CS", **seconds, "seconds": [1.0, 0.9, 1.0]}
    fast = {"entry": "local", "pattern": "CS", **seconds, "seconds": [0.1, 0.1, 0.1]}
    lines = page.sparse_section({"slow": slow, "fast": fast}).splitlines()
    verdicts = {line.split("`")[1]: line for line in lines if line.startswith("| `")}
    assert "does not hold" in verdicts["superlinear"]
    assert "| holds |" in verdicts["local"]
    assert page.SLOW["superlinear"] in lines
    assert page.SLOW["paro"] not in lines
    with pytest.raises(KeyError):
        page.sparse_section({"unexplained": slow | {"entry": "local"}})


RATIO = {"factor": 3.0, "length": 100}
POWER = {"exponent": 1.0}


@pytest.mark.parametrize(
    ("baseline", "verdict"),
    [([9.0, 9.1, 8.9], "HOLDS"), ([2.0, 2.1, 2.0], "FAILS"), ([1.0, 9.0, 3.0], "OPEN"),
     ([9.0], "UNKNOWN")],
)  # fmt: skip
def test_a_ratio_is_judged_by_its_interval(page, baseline, verdict):
    seconds = {"baseline": baseline, "entry": [1.0] * len(baseline)}
    _, _, found = page.judge_speed(RATIO | {"seconds": seconds})
    assert found is page.Verdict[verdict]


@pytest.mark.parametrize(("power", "verdict"), [(1.0, "HOLDS"), (1.5, "FAILS")])
def test_growth_is_judged_by_its_exponent(page, power, verdict):
    seconds = {str(n): [f * n**power for f in (1.0, 1.01, 0.99)] for n in (128, 256, 512, 1024)}
    _, _, found = page.judge_growth(POWER | {"seconds": seconds})
    assert found is page.Verdict[verdict]


def test_claims_of_less_than_the_square_are_read_from_the_records():
    found = {(claim.name, claim.pattern) for claim in claims(cab.attentions())}
    assert ("local", Pattern.CAUSAL_SELF) in found
    assert ("ep", Pattern.NONCAUSAL_CROSS) in found
    assert not any(name in ("softmax", "softmax-exact", "none") for name, _ in found)
    assert ("long-short", Pattern.CAUSAL_SELF) not in found


def test_an_exponent_above_the_claim_is_named():
    claim = Claim("mine", Pattern.CAUSAL_SELF, 1.0, 0.0)
    assert Found(1.1, 1.1, 1.0, 1).verdict(claim) == "holds"
    assert Found(1.3, 1.0, 1.0, 1).verdict(claim) == "time above the claim"
    assert Found(1.3, 1.9, 1.0, 1).verdict(claim) == "time and memory above the claim"
