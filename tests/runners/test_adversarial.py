"""Training against an adversary: the loss that is minimised, and that its results stand alone."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from cab import AttentionSpec, Pattern, Recipe, Scale
from cab.candidate import choose_candidate
from cab.chosen_task import choose_tasks
from cab.code_hash import runner_hash
from cab.errors import UsageError
from cab.regularisers import ADVERSARIAL, of_mechanism, of_training
from cab.request import Request, resolve_request
from cab.schema import Status, table_of
from cab.scoring.results import current
from runners.adversarial import AdversarialExperiment, Regularised
from runners.cells import CellFactory
from runners.executors.local import LocalExecutor
from runners.planner import make_plan
from runners.quality import experiment_of
from runners.session import reference_controls
from runners.stored import StoredCell, Today
from tests.runners.test_analysis import DIM, Dot, slot

EPS = 0.3


class Linear:
    """The loss is the sum of q·t over the slot's outputs, which are its queries times a weight."""

    recipe = Recipe(steps=1, batch_size=1, learning_rate=1.0)

    def __init__(self):
        self.target = torch.randn(DIM, generator=torch.Generator().manual_seed(3))

    def loss(self, model, batch):
        q = batch["q"] * model.weight
        return (model.slot(q, q, q) @ self.target).sum()

    def evaluate(self, model, split, seed):
        return {"loss": self.loss(model, {"q": torch.ones(1, 1, 5, DIM)}).item()}


def linear_model():
    model = nn.Module()
    model.slot = Dot(AttentionSpec(Pattern.CAUSAL_SELF, 1, DIM))
    model.weight = nn.Parameter(torch.tensor(2.0))
    return model


def test_the_loss_is_that_of_the_queries_and_that_of_the_disturbed_ones():
    task, model = Linear(), linear_model()
    q = torch.randn(3, 1, 5, DIM, generator=torch.Generator().manual_seed(2))
    loss = Regularised(task, [model.slot], EPS).loss(model, {"q": q})
    clean = 2 * (q @ task.target).sum()
    rise = EPS * 2 * q.norm(dim=-1).sum() * task.target.norm()
    assert loss.item() == pytest.approx((2 * clean + rise).item(), rel=1e-5)
    loss.backward()
    # The direction is a constant, the length of a query is not.
    assert model.weight.grad.item() == pytest.approx(((2 * clean + rise) / 2).item(), rel=1e-5)
    assert not model.slot._forward_pre_hooks


def test_evaluation_is_the_tasks_own():
    task, model = Linear(), linear_model()
    regularised = Regularised(task, [model.slot], EPS)
    with torch.no_grad():
        assert regularised.evaluate(model, "test", 0) == task.evaluate(model, "test", 0)
    assert regularised.recipe is task.recipe


def test_a_slot_that_reads_no_query_has_its_loss_twice():
    module = slot("none")
    q = torch.randn(2, 2, 7, DIM)
    task = SimpleNamespace(loss=lambda model, batch: model(q, q, q).square().sum())
    loss = Regularised(task, [module], EPS).loss(module, {})
    assert loss.item() == pytest.approx(2 * task.loss(module, {}).item())


def request(**fields):
    wanted = {
        "attentions": ["softmax", "linear-elu"], "patterns": ["CC"], "scale": "tiny", "seeds": 1,
        "tasks": ["test-time-regression"], "measures": ("quality", "latency"),
    }  # fmt: skip
    return Request(**wanted | fields)


def test_candidates_alone_are_trained_so_and_every_cost_is_measured_once():
    cells = make_plan(request(adversarial=EPS), machine="test").cells
    quality = [(c.attention, of_training(c.options)) for c in cells if c.kind == "quality"]
    own = {ADVERSARIAL: EPS}
    assert quality == [("softmax", own), ("linear-elu", own), ("softmax", {}), ("none", {})]
    costs = [c for c in cells if c.kind == "efficiency"]
    assert [c.attention for c in costs] == ["softmax", "linear-elu"]
    assert len({c.key for c in cells}) == len(cells)
    plain = make_plan(request(), machine="test").cells
    assert {c.key for c in costs} == {c.key for c in plain if c.kind == "efficiency"}


def test_cells_without_it_keep_their_keys_and_those_with_it_have_their_own():
    plain = {c.attention: c for c in make_plan(request(), "here").cells if c.kind == "quality"}
    own = [c for c in make_plan(request(adversarial=EPS), "here").cells if of_training(c.options)]
    other = [c for c in make_plan(request(adversarial=0.1), "here").cells if of_training(c.options)]
    assert plain["softmax"].key in {
        c.key for c in make_plan(request(adversarial=EPS), "here").cells
    }
    for cell, small in zip(own, other, strict=True):
        usual = plain[cell.attention]
        assert len({cell.key, small.key, usual.key}) == 3
        assert of_mechanism(cell.options) == dict(usual.options)
        assert cell.runner_hash == runner_hash(ADVERSARIAL) != usual.runner_hash
        assert usual.runner_hash == runner_hash("quality")


def test_costs_have_nothing_to_train():
    with pytest.raises(UsageError, match="measure quality"):
        resolve_request(request(adversarial=EPS, measures=("latency",)))


def test_controls_of_a_candidates_name_may_come_from_the_reference():
    cells = make_plan(request(adversarial=EPS), machine="test").cells
    everything = SimpleNamespace(from_reference=set)
    taken = reference_controls(cells, ["softmax", "linear-elu"], everything)
    assert [(c.attention, of_training(c.options)) for c in taken] == [("softmax", {}), ("none", {})]
    cells = make_plan(request(), machine="test").cells
    taken = reference_controls(cells, ["softmax", "linear-elu"], everything)
    assert [c.attention for c in taken] == ["none"]


@pytest.fixture(scope="module")
def cells():
    """Quality cells of softmax on a small task: as its recipe says, and against an adversary."""
    make = CellFactory("cpu")
    (task,) = choose_tasks(["associative-recall"], Scale.TINY, None, make.hashes)
    candidate = choose_candidate("softmax", hashes=make.hashes)
    against = replace(candidate, training={ADVERSARIAL: EPS})
    return [
        make.quality(c, Pattern.NONCAUSAL_CROSS, task, Scale.TINY, 0) for c in (candidate, against)
    ]


def first_loss(cell):
    class StopError(Exception):
        pass

    seen = []

    class First:
        def batch(self, batch):
            pass

        def loss(self, step, value):
            seen.append(value)
            raise StopError

    experiment = experiment_of(cell)
    experiment.build()
    weights = [p.detach().clone() for p in experiment.model.parameters()]
    with pytest.raises(StopError):
        experiment.train(lambda **_: None, observer=First())
    return experiment, weights, seen[0]


def test_the_same_weights_and_batches_and_another_loss(cells):
    plain, weights, loss = first_loss(cells[0])
    against, others, higher = first_loss(cells[1])
    assert isinstance(against, AdversarialExperiment)
    assert not isinstance(plain, AdversarialExperiment)
    assert all(torch.equal(a, b) for a, b in zip(weights, others, strict=True))
    assert 2 * loss < higher < 3 * loss


@pytest.mark.slow
def test_a_cell_is_measured_stored_under_its_own_name_and_found_again(cells):
    events = []
    LocalExecutor(timeout=240).run([cells[1]], events.append)
    end = events[-1]
    assert end.status is Status.OK, end.message
    results = current(table_of(end.rows).to_pandas(), installed=lambda name: ())
    assert set(results.rows["entry"]) == {f"softmax (train.adversarial={EPS})"}
    today = Today("cpu")
    assert today.cell(StoredCell(cells[1].key, end.rows)).key == cells[1].key


def test_options_of_training_have_names_that_no_mechanism_can_have():
    assert not ADVERSARIAL.isidentifier()
    options = {"window": 3, ADVERSARIAL: 0.1}
    assert of_mechanism(options) == {"window": 3}
    assert of_training(options) == {ADVERSARIAL: 0.1}
