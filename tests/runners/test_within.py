"""What a time budget holds: first seeds first, and nothing that would end too late."""

import re
from dataclasses import dataclass

import pytest
from typer.testing import CliRunner

from cab.cli.app import app
from cab.cli.execution import Performed
from cab.cli.run import _whole_seeds
from cab.durations import parse_time
from cab.errors import UsageError
from runners.planner import Plan
from runners.within import NOMINAL_SECONDS, run_within, stages


@pytest.mark.parametrize(
    ("words", "seconds"),
    [("90m", 5400), ("2h", 7200), ("1h30m", 5400), ("45s", 45), ("4m30s", 270), (12.5, 12.5)],
)
def test_times(words, seconds):
    assert parse_time(words) == seconds


@pytest.mark.parametrize("words", ["", "2", "h", "-1h", "1d", "0s", "9" * 30 + "s"])
def test_no_times(words):
    with pytest.raises(UsageError, match="is no time"):
        parse_time(words)


@dataclass(frozen=True)
class Made:
    task: str
    seed: int
    kind: str = "quality"


QUALITY = [Made(task, seed) for task in "ab" for seed in range(3)]
COSTS = [Made("", seed, "efficiency") for seed in range(3)]


def done_within(cells, seconds, each, takes, width=1):
    """What was run of cells that are expected to take ``each`` and take ``takes``."""
    now, done = [0.0], []

    def run(some):
        assert len({cell.kind for cell in some}) == 1
        at_once = width if some[0].kind == "quality" else 1
        now[0] += takes * -(-len(some) // at_once)
        done.extend(some)

    left = run_within(cells, seconds, width, lambda cell: each, run, lambda: now[0])
    assert {*done, *left} == {*cells}
    assert not {*done} & {*left}
    return done, now[0]


def test_scores_of_a_seed_come_before_its_costs_and_the_next_seed():
    order = [(cell.seed, cell.kind) for stage in stages(QUALITY + COSTS) for cell in stage]
    assert order == sorted(order, key=lambda x: (x[0], x[1] != "quality"))
    assert len(stages(QUALITY + COSTS)) == 6


def test_all_that_fits_and_no_more():
    every, _ = done_within(QUALITY + COSTS, 90.0, each=10.0, takes=10.0)
    assert len(every) == 9
    some, end = done_within(QUALITY + COSTS, 55.0, each=10.0, takes=10.0)
    assert [(cell.seed, cell.kind) for cell in some] == [
        (0, "quality"), (0, "quality"), (0, "efficiency"), (1, "quality"), (1, "quality"),
    ]  # fmt: skip
    assert end <= 55.0
    assert done_within(QUALITY, 9.0, each=10.0, takes=10.0) == ([], 0.0)


def test_cells_at_a_time():
    some, end = done_within(QUALITY, 30.0, each=10.0, takes=10.0, width=2)
    assert len(some) == 6
    assert end == 30.0


def test_a_slow_machine_is_noticed():
    some, _ = done_within(QUALITY, 60.0, each=10.0, takes=20.0)
    assert [cell.seed for cell in some] == [0, 0, 1]


def test_a_cell_that_is_not_known_has_a_nominal_time():
    some, _ = done_within(QUALITY, 2.5 * NOMINAL_SECONDS, each=None, takes=NOMINAL_SECONDS)
    assert len(some) == 2


def test_scores_that_are_shown_are_of_whole_seeds():
    plan = Plan([*QUALITY, *COSTS], ["a"], [], [])

    def shown(*left_out):
        cells = _whole_seeds(Performed(plan, None, left_out)).cells
        return [{c.seed for c in cells if c.kind == kind} for kind in ("quality", "efficiency")]

    assert shown() == [{0, 1, 2}, {0, 1, 2}]
    assert shown(QUALITY[2]) == [{0, 1}, {0, 1, 2}]
    assert shown(COSTS[1]) == [{0, 1, 2}, {0, 1, 2}]
    assert shown(*QUALITY[3:]) == [{0, 1, 2}, {0, 1, 2}]


def test_the_command_leaves_out_what_does_not_fit_and_goes_on_later(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [
        "run", "--attn", "linear-elu", "--pattern", "CS", "--task", "associative-recall",
        "--scale", "tiny", "--seeds", "2", "--measure", "quality", "--no-reference",
    ]  # fmt: skip
    none = CliRunner().invoke(app, [*words, "--time-budget", "5s"], env={"COLUMNS": "120"})
    assert none.exit_code == 0, none.output
    assert re.search(r"time budget of 5.00 s: 6 cells left out; the same command", none.output)
    wrong = CliRunner().invoke(app, [*words, "--time-budget", "soon"])
    assert wrong.exit_code != 0
