"""Tasks that draw their problems: what their hash is of, and what they refuse."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from cab import GeneratedTask, Metric, Pattern, Recipe, Scale, TaskInfo
from cab.errors import UsageError


@dataclass(frozen=True)
class Size:
    length: int
    shares: dict[str, float]


class Coin(GeneratedTask):
    info = TaskInfo(
        id="coin",
        title="Coin",
        description="",
        backbones={Pattern.CAUSAL_SELF: "none"},
        metrics=(Metric("error", "1", higher_is_better=False, help=""),),
        scales=(Scale.TINY,),
        dataset="generated",
    )
    settings: object = None

    @property
    def problem_settings(self):
        return self.settings

    @property
    def recipe(self):
        return Recipe(steps=1, batch_size=1, learning_rate=1.0)

    def build(self, slots):
        return torch.nn.Identity()

    def training_batch(self, generator):
        return {}

    def loss(self, model, batch):
        return torch.zeros(())

    def evaluate(self, model, split, seed):
        return {"error": 0.0}


def hash_of(settings):
    task = Coin(Pattern.CAUSAL_SELF, Scale.TINY)
    task.settings = settings
    return task.data_hash


def test_the_hash_is_of_the_settings_alone():
    size = Size(4, {"a": 0.5, "b": 0.25})
    assert hash_of(size) == hash_of(Size(4, {"b": 0.25, "a": 0.5}))
    others = [
        Size(5, {"a": 0.5, "b": 0.25}),
        Size(4, {"a": 0.5, "b": 0.2500001}),
        (4, size),
        [size, Scale.TINY],
        None,
    ]
    assert len({hash_of(one) for one in [size, *others]}) == len(others) + 1


def test_what_has_no_lasting_text_is_no_setting():
    with pytest.raises(TypeError, match="object"):
        hash_of({"a": object()})
    with pytest.raises(TypeError, match="set"):
        hash_of({1, 2})


def test_a_data_folder_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="'coin' generates its problems; it reads no data folder"):
        Coin(Pattern.CAUSAL_SELF, Scale.TINY, tmp_path)


def test_evaluations_are_the_same_for_all_seeds_unless_the_record_says_so():
    task = Coin(Pattern.CAUSAL_SELF, Scale.TINY)
    assert {task.evaluation_seed(seed) for seed in range(5)} == {0}

    class Fresh(Coin):
        info = TaskInfo(**{**vars(Coin.info), "fresh_evaluation": True})

    assert [Fresh(Pattern.CAUSAL_SELF, Scale.TINY).evaluation_seed(s) for s in range(3)] == [
        0,
        1,
        2,
    ]
