"""``cab run --hybrid`` end to end: measured, ranked, compared and cited like any other entry."""

import json

import pytest

NAME = "softmax:1,linear-elu:3"


@pytest.mark.slow
def test_a_hybrid_is_an_entry_of_its_own(cab_in):
    words = (
        "run", "--hybrid", NAME, "-p", "CS", "-t", "in-context-regression", "--scale", "tiny",
        "--seeds", "1", "--measure", "quality",
    )  # fmt: skip
    done = cab_in(*words)
    assert done.returncode == 0, done.stderr
    slots = "1 softmax, 1 linear-elu in the"
    assert f"{NAME}: {slots} causal-self slots of in-context-regression" in done.stdout
    assert "3 in results/runs already, 0 to run" in cab_in(*words).stdout

    where = ("-p", "CS", "--scale", "tiny", "--no-reference")
    ranked = ("leaderboard", *where, "-t", "in-context-regression")
    (sheet,) = json.loads(cab_in(*ranked, "-f", "json").stdout)
    rows = {row["entry"]: row for row in sheet["rows"]}
    assert set(rows) == {NAME, "softmax", "none"}
    assert rows[NAME]["family"] == "hybrid"
    assert f"{NAME}: {slots} slots of in-context-regression" in sheet["notes"]

    assert f"{NAME} over softmax" in cab_in("compare", NAME, "softmax", *where).stdout
    assert "part i mod 4" in cab_in("show", NAME, "--no-reference").stdout
    cited = cab_in("cite", "--used", "--no-reference").stdout
    assert "katharopoulos" in cited.lower()
    assert "not registered here" not in cited
