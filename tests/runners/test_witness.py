"""A witness shows every change of behaviour, late ones included, and nothing else."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from cab import Attention, Pattern, Recipe, Scale
from cab.candidate import choose_candidate
from cab.chosen_task import choose_task
from cab.registries import ATTENTIONS, TASKS
from runners import training
from runners.cells import CellFactory
from runners.quality import experiment_of
from runners.witness import miniature
from runners.witness.record import Witness, differences
from runners.witness.recording import Witnessing, recipe_digest
from runners.witness.replay import replay
from runners.witness.untrained import untrained_metrics
from tasks.forecasting.series_task import SeriesTask

TASK = "forecasting"


def silent(**_):
    pass


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    make = CellFactory("cpu")
    return make.quality(
        choose_candidate("linear-elu"), Pattern.NONCAUSAL_SELF, choose_task(TASKS.resolve(TASK)),
        Scale.TINY, 3,
    )  # fmt: skip


@pytest.fixture(scope="module")
def recorded(cell):
    """The witness of a whole training run."""
    torch.set_num_threads(1)
    experiment = experiment_of(cell)
    experiment.build()
    watching = Witnessing(cell, experiment)
    experiment.train(silent, observer=watching)
    return watching.witness()


def replayed(cell):
    rows = []
    replay(
        cell, lambda *, done, loss=None, rows_=rows, rows=None, artifacts=None: rows_.extend(rows)
    )
    (row,) = rows
    return Witness.from_json(row.witness)


def test_a_replay_gives_the_witness_of_the_whole_run(cell, recorded):
    assert differences(recorded, replayed(cell)) == []
    assert len(recorded.losses) == 5
    assert not recorded.stateful


def test_a_witness_survives_the_store(recorded):
    assert Witness.from_json(recorded.to_json()) == recorded
    with pytest.raises(ValueError, match="no witness"):
        Witness.from_json("{}")


def test_recording_moves_no_number(cell):
    """Training is the same whether somebody looks on or not."""
    losses = []
    for watched in (False, True):
        experiment = experiment_of(cell)
        experiment.build()
        observer = {"observer": Witnessing(cell, experiment)} if watched else {}
        losses.append(experiment.train(silent, **observer).losses)
    assert losses[0] == losses[1]


def late(function, first, change):
    """A function that behaves otherwise from its ``first`` call on."""
    calls = 0

    def changed(*args, **named):
        nonlocal calls
        calls += 1
        return change(function(*args, **named)) if calls >= first else function(*args, **named)

    return changed


def planted_schedule(monkeypatch):
    true = training.learning_rate
    slower = lambda recipe, step: true(recipe, step) * (0.5 if step == recipe.steps else 1)  # noqa: E731
    monkeypatch.setattr(training, "learning_rate", slower)
    monkeypatch.setattr("runners.witness.recording.learning_rate", slower)


def planted_choice(monkeypatch):
    monkeypatch.setattr(training, "better", lambda *args: True)


def planted_late_gradients(monkeypatch):
    true = nn.utils.clip_grad_norm_
    calls = [0]

    def changed(parameters, most):
        calls[0] += 1
        return true(parameters, most if calls[0] < 60 else most / 1000)

    monkeypatch.setattr(training.nn.utils, "clip_grad_norm_", changed)


def planted_metric(monkeypatch):
    true = SeriesTask.evaluate
    monkeypatch.setattr(
        SeriesTask,
        "evaluate",
        lambda self, *args: {k: v * (1 + 1e-9) for k, v in true(self, *args).items()},
    )


def planted_slice(monkeypatch):
    true = SeriesTask.evaluate

    def fewer(self, model, split, seed):
        whole = self.geometry
        windows = {**whole.windows, "test": whole.windows["test"] - 1}
        self.geometry = replace(whole, windows=windows)
        try:
            return true(self, model, split, seed)
        finally:
            self.geometry = whole

    monkeypatch.setattr(SeriesTask, "evaluate", fewer)


def planted_data(monkeypatch):
    true = SeriesTask.training_batch
    calls = [0]

    def shuffled(self, generator):
        calls[0] += 1
        batch = true(self, generator)
        return batch if calls[0] % 40 else {k: v.flip(0) for k, v in batch.items()}

    monkeypatch.setattr(SeriesTask, "training_batch", shuffled)


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (planted_schedule, "learning rates"),
        (planted_choice, "training loop"),
        (planted_late_gradients, "training loop"),
        (planted_metric, "metrics of the untrained model"),
        (planted_slice, "metrics of the untrained model"),
        (planted_data, "the data or their order"),
    ],
)
def test_a_planted_change_is_seen(cell, recorded, monkeypatch, plant, words):
    plant(monkeypatch)
    assert words in "; ".join(differences(recorded, replayed(cell)))


def test_averaging_is_seen_by_the_miniature(cell, monkeypatch):
    task = experiment_of(cell).task
    recipe = replace(task.recipe, averaging=0.9, steps=200)
    monkeypatch.setattr(type(task), "recipe", property(lambda self: recipe))
    before, again = miniature.run_miniature(task, 0), miniature.run_miniature(task, 0)
    assert before == again
    # What is other from the 150th step on alone.
    true = training._average

    def changed(averaged, model, decay, step):
        true(averaged, model, decay if step < 150 else 0.5, step)

    monkeypatch.setattr(training, "_average", changed)
    assert miniature.run_miniature(task, 0) != before


@pytest.mark.parametrize("field", list(Recipe.__dataclass_fields__))
def test_every_field_of_a_recipe_is_seen(field):
    recipe = Recipe(steps=10, batch_size=4, learning_rate=1e-3)
    other = {
        "schedule": "linear", "precision": "bfloat16", "betas": (0.8, 0.9),
    }.get(field, getattr(recipe, field) + 1 if not isinstance(getattr(recipe, field), str | tuple)
          else None)  # fmt: skip
    assert recipe_digest(replace(recipe, **{field: other})) != recipe_digest(recipe)


class Anneals(Attention):
    """Becomes another mechanism as training goes on."""

    def __init__(self, spec):
        super().__init__(spec)
        self.calls = 0

    def forward(self, q, k, v, context=None):
        self.calls += self.training
        return v * 1.0 if self.calls < 50 else v * 2.0


def test_a_state_over_steps_is_noticed(cell, recorded):
    experiment = experiment_of(cell)
    experiment.slots._candidate = Anneals
    experiment.slots._options = {}
    Anneals.info = replace(ATTENTIONS.resolve("none").info, id="anneals", options=())
    experiment.build()
    watching = Witnessing(cell, experiment)
    experiment.train(silent, observer=watching)
    witness = watching.witness()
    assert witness.stateful
    same = replace(witness, attention_code="other")
    assert "keeps a state" in "; ".join(differences(witness, same))
    assert differences(replace(recorded, attention_code="other"), recorded) == []


def test_a_metric_that_says_nothing_needs_the_same_code(recorded):
    silent_ = replace(recorded, untrained={"test/rouge": 0.0})
    other = replace(silent_, evaluation_code="other")
    assert "say nothing of an untrained model" in "; ".join(differences(silent_, other))
    assert differences(recorded, replace(recorded, evaluation_code="other")) == []


def test_on_another_processor_rounding_is_no_difference(recorded):
    near = replace(
        recorded,
        processor="another",
        losses=[x * (1 + 1e-8) for x in recorded.losses],
        weights="other digest",
        looked_at="other digest",
        miniature="other digest",
        untrained={k: None if v is None else v * (1 + 1e-8) for k, v in recorded.untrained.items()},
    )
    assert differences(recorded, near) == []
    assert differences(recorded, replace(near, losses=[x * 1.001 for x in near.losses]))
    assert differences(recorded, replace(near, processor=recorded.processor))


def test_the_untrained_model_runs_once_for_every_shape(cell):
    experiment = experiment_of(cell)
    experiment.build()
    calls = []
    part = next(experiment.model.children())
    part.register_forward_hook(lambda *_: calls.append(1))
    found, _ = untrained_metrics(experiment.task, experiment.model, 0)
    assert 1 <= len(calls) <= 4
    assert "forward" not in vars(experiment.model)
    assert all(value is not None and math.isfinite(value) for value in found.values())
    assert {name.split("/")[0] for name in found} == {"validation", "test"}
    json.dumps(found)
