"""Training for a multiple of the recipe's steps: what changes, what does not, where it stands."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from cab.candidate import choose_candidate
from cab.chosen_task import choose_tasks
from cab.code_hash import runner_hash
from cab.errors import UsageError
from cab.info import Scale
from cab.patterns import Pattern
from cab.regularisers import STEPS, multiple_of, of_mechanism, of_training, parse_steps
from cab.request import Request, resolve_request
from cab.schema import Status, table_of
from cab.scoring.results import current
from cab.task_contract import Recipe
from runners.cells import CellFactory
from runners.executors.local import LocalExecutor
from runners.planner import make_plan
from runners.quality import experiment_of
from runners.session import reference_controls
from runners.stored import StoredCell, Today
from runners.stretched import StretchedExperiment, stretched
from runners.training import learning_rate
from runners.witness.recording import recipe_digest


def request(**fields):
    wanted = {
        "attentions": ["softmax", "linear-elu"], "patterns": ["CC"], "scale": "tiny", "seeds": 1,
        "tasks": ["test-time-regression-trained"], "measures": ("quality", "latency"),
    }  # fmt: skip
    return Request(**wanted | fields)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "inverse-sqrt", "constant"])
@pytest.mark.parametrize("multiple", [0.5, 4.0])
def test_the_schedule_keeps_its_shape(schedule, multiple):
    usual = Recipe(steps=200, batch_size=3, learning_rate=0.1, warmup_steps=40, schedule=schedule)
    other = stretched(usual, multiple)
    assert (other.steps, other.warmup_steps) == (200 * multiple, 40 * multiple)
    for step in range(2, 201, 2):
        rate = learning_rate(other, round(multiple * step))
        assert rate == pytest.approx(learning_rate(usual, step))
    assert replace(other, steps=200, warmup_steps=40) == usual


def test_averaging_reaches_as_far_back_in_parts_of_the_run():
    usual = Recipe(steps=100, batch_size=1, learning_rate=1.0, averaging=0.96)
    assert stretched(usual, 4.0).averaging ** 4 == pytest.approx(0.96)


def test_every_evaluation_has_a_step():
    recipe = Recipe(steps=10, batch_size=1, learning_rate=1.0, evaluations=3)
    assert stretched(recipe, 0.001).steps == 3


def test_candidates_and_controls_are_all_trained_so():
    cells = make_plan(request(steps=4.0), machine="test").cells
    quality = [(c.attention, of_training(c.options)) for c in cells if c.kind == "quality"]
    assert quality == [(name, {STEPS: 4.0}) for name in ("softmax", "linear-elu", "none")]
    assert len({c.key for c in cells}) == len(cells)
    plain = make_plan(request(), machine="test").cells
    costs = {c.key for c in cells if c.kind == "efficiency"}
    assert costs == {c.key for c in plain if c.kind == "efficiency"}


def test_standard_cells_keep_their_keys_and_others_have_their_own():
    plain = [c for c in make_plan(request(steps=1.0), "here").cells if c.kind == "quality"]
    usual = [c for c in make_plan(request(), "here").cells if c.kind == "quality"]
    assert [c.key for c in plain] == [c.key for c in usual]
    assert not any(of_training(c.options) for c in plain)
    keys = {c.key for c in plain}
    for multiple in (0.5, 4.0):
        cells = make_plan(request(steps=multiple), "here").cells
        for cell in (c for c in cells if c.kind == "quality"):
            assert of_mechanism(cell.options) == dict(choose_candidate(cell.attention).options)
            assert cell.runner_hash == runner_hash(STEPS) != plain[0].runner_hash
            assert cell.key not in keys
            keys.add(cell.key)
    assert plain[0].runner_hash == runner_hash("quality")


@pytest.mark.parametrize(
    ("fields", "says"),
    [({"measures": ("latency",)}, "measure quality"), ({"adversarial": 0.1}, "do not go together")],
)
def test_what_does_not_go_with_it_is_refused(fields, says):
    with pytest.raises(UsageError, match=says):
        resolve_request(request(steps=4.0, **fields))


@pytest.mark.parametrize(
    ("word", "multiple"), [("4x", 4.0), ("0.5x", 0.5), ("1x", 1.0), (2.0, 2.0)]
)
def test_multiples(word, multiple):
    assert parse_steps(word) == multiple


@pytest.mark.parametrize(
    "word", ["4", "x", "-1x", "0x", "1e3x", "1001x", "nanx", "", "4xx", "x" * 99]
)
def test_what_is_no_multiple(word):
    with pytest.raises(UsageError, match="--steps") as refused:
        parse_steps(word)
    assert len(str(refused.value)) < 120


def test_options_say_the_multiple():
    assert multiple_of({"window": 3}) == 1
    assert multiple_of({STEPS: 0.5}) == 0.5
    assert all(math.isnan(multiple_of({STEPS: odd})) for odd in ("long", 0, -1.0, None))


def test_controls_may_come_from_the_reference_where_it_has_them_at_that_length():
    cells = make_plan(request(steps=4.0), machine="test").cells
    everything = SimpleNamespace(from_reference=set)
    taken = reference_controls(cells, ["softmax", "linear-elu"], everything)
    assert [(c.attention, of_training(c.options)) for c in taken] == [("none", {STEPS: 4.0})]


@pytest.fixture(scope="module")
def cells():
    """Quality cells of softmax on a small task: as its recipe says, and at half of the steps."""
    make = CellFactory("cpu")
    (task,) = choose_tasks(["associative-recall"], Scale.TINY, None, make.hashes)
    candidate = choose_candidate("softmax", hashes=make.hashes)
    short = replace(candidate, training={STEPS: 0.5})
    return [
        make.quality(c, Pattern.NONCAUSAL_CROSS, task, Scale.TINY, 0) for c in (candidate, short)
    ]


class Watching:
    """Counts steps and keeps the first batch."""

    def __init__(self):
        self.steps, self.first = 0, None

    def batch(self, batch):
        self.first = self.first or batch

    def loss(self, step, value):
        self.steps = step


def test_the_same_weights_and_batches_and_half_of_the_steps(cells):
    seen = []
    for cell in cells:
        experiment, watching = experiment_of(cell), Watching()
        experiment.build()
        weights = [p.detach().clone() for p in experiment.model.parameters()]
        experiment.train(lambda **_: None, observer=watching)
        seen.append((experiment, weights, watching))
    (plain, usual, whole), (half, others, part) = seen
    assert isinstance(half, StretchedExperiment)
    assert not isinstance(plain, StretchedExperiment)
    assert all(torch.equal(a, b) for a, b in zip(usual, others, strict=True))
    assert all(torch.equal(whole.first[name], part.first[name]) for name in whole.first)
    assert (whole.steps, part.steps) == (plain.task.recipe.steps, plain.task.recipe.steps // 2)
    assert half.task.reduced().recipe.steps == part.steps
    assert recipe_digest(half.task.recipe) != recipe_digest(plain.task.recipe)


@pytest.mark.slow
def test_a_cell_is_measured_and_found_again_and_no_leaderboard_has_it(cells):
    events = []
    LocalExecutor(timeout=240).run([cells[1]], events.append)
    end = events[-1]
    assert end.status is Status.OK, end.message
    rows = table_of(end.rows).to_pandas()
    usual = current(rows, installed=lambda name: ())
    assert usual.rows.empty
    assert usual.multiples == (0.5,)
    short = current(rows, installed=lambda name: (), steps=0.5)
    assert set(short.rows["entry"]) == {"softmax"}
    assert short.multiples == ()
    assert Today("cpu").cell(StoredCell(cells[1].key, end.rows)).key == cells[1].key
