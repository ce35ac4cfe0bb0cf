"""benchmarks/bench_command.py: whole commands at two revisions."""

import pytest

from benchmarks.bench_command import summary, wall_seconds
from benchmarks.compare import ROOT


def test_a_command_is_timed_and_one_that_fails_is_not(tmp_path, capsys):
    assert 0 < wall_seconds(ROOT, ["--help"], tmp_path) < 250
    with pytest.raises(SystemExit, match="ended with 2"):
        wall_seconds(ROOT, ["--attn", "softmax", "--pattern", "CS", "--lengths", "0"], tmp_path)
    assert "--lengths" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("head", "told"), [([30.0, 31.0, 29.0, 30.5], True), ([50.0, 70.0, 40.0, 65.0], False)]
)
def test_a_ratio_has_an_interval_that_tells_or_does_not(head, told):
    text = summary({"base": [60.0, 61.0, 59.0, 60.0], "head": head})
    assert "base: median 60.0 s of 4 runs (59.0 to 61.0)" in text
    assert ("not told apart" not in text) == told
    if told:
        assert "head / base: 0.50" in text


def test_a_single_run_has_no_interval():
    text = summary({"base": [60.0], "head": [30.0]})
    assert "head / base: 0.500 (no interval), not told apart" in text
