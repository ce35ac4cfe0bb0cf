"""Passkey retrieval: where needles lie, effective lengths and their intervals, the heat map."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from cab import Attention, Pattern, Scale, Slots
from cab.errors import UsageError
from cab.registries import TASKS
from runners.training import evaluate, train
from tasks.passkey.effective_length import effective_length, effective_length_interval
from tasks.passkey.problem import (
    Haystack,
    draw_places,
    draw_places_at,
    draw_streams,
    places,
)
from tasks.passkey.task import DEPTHS, QUESTIONS, Passkey
from tasks.problems.recall import look_up

HAYSTACK = Haystack(filler=10, keys=12, values=14, needles=4)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    # At these sizes a second thread costs more than it gives, most of all on a busy machine.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def task() -> Passkey:
    return Passkey(Pattern.CAUSAL_SELF, Scale.TINY)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model_of(task: Passkey, attention: type[Attention] = SoftmaxAttention) -> nn.Module:
    torch.manual_seed(0)
    return task.build(Slots(task.pattern, attention, SoftmaxAttention)).eval()


# The streams


def test_needles_are_distinct_and_uniform() -> None:
    starts = draw_places(5000, 34, 1, HAYSTACK, generator())
    assert places(34, 1) == 16
    assert all(len(set(row)) == 4 for row in starts[:200].tolist())
    share = torch.bincount(starts[:, 0], minlength=16) / 5000
    assert (share - 1 / 16).abs().max() < 4 * (1 / 16 / 5000) ** 0.5


def test_needles_at_a_depth() -> None:
    depths = torch.tensor([0.0, 0.5, 1.0]).repeat(3000)
    starts = draw_places_at(depths, 34, HAYSTACK, generator())
    assert starts[:3, 0].tolist() == [0, 8, 15]
    assert all(len(set(row)) == 4 for row in starts[:300].tolist())
    others = starts[1::3, 1:].flatten()
    share = torch.bincount(others, minlength=16) / len(others)
    assert share[8] == 0
    left = torch.cat([share[:8], share[9:]])
    assert (left - 1 / 15).abs().max() < 4 * (1 / 15 / 9000) ** 0.5


def test_streams_hold_needles_filler_and_questions() -> None:
    starts = draw_places(200, 40, 2, HAYSTACK, generator())
    batch = draw_streams(starts, 40, 2, HAYSTACK, generator(1))
    tokens, read, targets = batch["tokens"], batch["read"], batch["targets"]
    assert read[0].tolist() == [37, 39]
    body = torch.cat([tokens[:, :37], tokens[:, 38:39]], dim=1)
    assert (body >= HAYSTACK.first_value).sum(1).eq(4).all()
    assert ((body >= HAYSTACK.filler) & (body < HAYSTACK.first_value)).sum(1).eq(4).all()
    assert torch.equal(tokens.gather(1, 2 * starts[:, :2]), tokens.gather(1, read))
    assert torch.equal(look_up(tokens, read), targets + HAYSTACK.first_value)
    share = torch.bincount(body[body < HAYSTACK.filler], minlength=10) / (200 * 30)
    assert (share - 0.1).abs().max() < 4 * (0.1 / 6000) ** 0.5
    assert torch.bincount(targets.flatten(), minlength=14).min() > 0


def test_needles_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="4 needles"):
        draw_places(1, 8, 2, HAYSTACK, generator())


# The effective length


def test_effective_length_ends_at_the_first_failure() -> None:
    assert effective_length({64: 1.0, 128: 0.9, 256: 0.7, 512: 0.95}) == 128
    assert effective_length({64: 0.5, 128: 1.0}) == 0
    assert effective_length({128: 0.8, 64: 0.8}) == 128


def test_interval_without_doubt_is_a_point() -> None:
    right = {64: torch.ones(5, 10), 128: torch.ones(5, 10), 256: torch.zeros(5, 10)}
    assert effective_length_interval(right, generator(0)) == (128, 128)
    assert effective_length_interval({64: torch.zeros(5, 10)}, generator(0)) == (0, 0)


def test_interval_at_the_threshold_is_wide_and_narrows_with_problems() -> None:
    def at(share: float, problems: int) -> dict[int, Tensor]:
        hits = (torch.arange(problems) < share * problems).float().expand(5, -1)
        return {64: torch.ones(5, problems), 128: hits}

    assert effective_length_interval(at(0.8, 20), generator(0)) == (64, 128)
    assert effective_length_interval(at(0.84, 50), generator(0)) == (64, 128)
    assert effective_length_interval(at(0.84, 500), generator(0)) == (128, 128)
    once, again = (effective_length_interval(at(0.8, 20), generator(1)) for _ in range(2))
    assert once == again


def test_interval_covers_the_true_length() -> None:
    # True accuracies 0.95 and 0.6: the effective length is 64.
    covered = 0
    for seed in range(60):
        draws = torch.rand(2, 5, 16, generator=generator(seed))
        right = {64: draws[0] < 0.95, 128: draws[1] < 0.6}
        low, high = effective_length_interval(right, generator(seed))
        covered += low <= 64 <= high
    assert covered >= 57


# The task


def test_batches_are_a_function_of_the_seed(task: Passkey) -> None:
    first, again = (task.training_batch(generator(3)) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    lengths = {task.training_batch(generator(seed))["tokens"].shape[1] for seed in range(300)}
    assert lengths == set(range(min(task.setting.trained), max(task.setting.trained) + 1, 2))
    assert first["targets"].shape == (task.recipe.batch_size, QUESTIONS)


@pytest.mark.parametrize("attention", [SoftmaxAttention, NoAttention])
def test_nothing_is_seen_before_it_comes(task: Passkey, attention: type[Attention]) -> None:
    model = model_of(task, attention)
    tokens = task.training_batch(generator())["tokens"][:4, :32]
    read = torch.arange(32).expand(4, -1)
    changed = torch.cat([tokens[:, :20], tokens[:, 20:].flip(1)], dim=1)
    before, after = model(tokens, read), model(changed, read)
    torch.testing.assert_close(before[:, :20], after[:, :20])
    cut = model(tokens[:, :20], read[:, :20])
    torch.testing.assert_close(before[:, :20], cut, atol=1e-5, rtol=1e-5)


class Near(nn.Module):
    """Retrieves what lies within ``reach`` tokens of the question."""

    def __init__(self, haystack: Haystack, reach: int) -> None:
        super().__init__()
        self.haystack, self.reach = haystack, reach
        self.parameter = nn.Parameter(torch.zeros(()))

    def forward(self, tokens: Tensor, read: Tensor) -> Tensor:
        where = (tokens[:, None] == tokens.gather(1, read)[..., None]).int().argmax(-1)
        answers = look_up(tokens, read) - self.haystack.first_value
        answers[read - where > self.reach] = -1
        return 100.0 * (answers[..., None] == torch.arange(self.haystack.values)).float()


def test_scores_of_models_that_are_known(task: Passkey) -> None:
    haystack = task.setting.haystack
    perfect = task.evaluate(Near(haystack, 10_000), "test", 0)
    assert perfect["accuracy"] == perfect["accuracy_beyond"] == 1
    assert perfect["effective_length"] == perfect["effective_length_low"] == 128
    declared = {metric.name for metric in task.info.metrics}
    unused = {f"accuracy_{length}" for length in (256, 512, 1024, 2048, 4096)}
    assert {*perfect} == declared - unused
    near = task.evaluate(Near(haystack, 32), "test", 0)
    assert near["accuracy_32"] == 1
    assert near["effective_length"] == 32
    within = task.evaluate(Near(haystack, 10_000), "validation", 0)
    assert "accuracy_128" not in within


def test_references(task: Passkey) -> None:
    values = task.references(0)
    assert values == {"look-up": 1, "chance": 1 / 16, "any-needle": 1 / 4}


def test_heat_map_shows_depth_and_length(task: Passkey) -> None:
    chart = task.artifacts(Near(task.setting.haystack, 32), 0)[0]
    specification = json.loads(chart.content)
    cells = next(iter(specification["datasets"].values()))
    assert len(cells) == len(DEPTHS) * len(task.setting.lengths)
    value = {(cell["row"], cell["column"]): cell["value"] for cell in cells}
    assert value["100%", "128"] == 1
    # Questions that are not answered are guessed with value 0.
    assert value["0%", "128"] < 0.3
    assert value["0%", "32"] == 1


def _silent(**_: object) -> None:
    """A report to nobody."""


def test_a_tiny_cell_from_end_to_end(task: Passkey) -> None:
    scores = []
    for _ in range(2):
        torch.manual_seed(0)
        slots = Slots(task.pattern, SoftmaxAttention, SoftmaxAttention)
        model = task.build(slots)
        train(task, model, slots.candidates, 0, _silent)
        scores.append(evaluate(task, model, "test", 0, task.recipe))
    assert scores[0] == scores[1]
    assert scores[0]["accuracy"] > 2 * task.references(0)["chance"]


def test_scale_base_builds() -> None:
    task = Passkey(Pattern.CAUSAL_SELF, Scale.BASE)
    haystack = task.setting.haystack
    starts = draw_places(1, 256, QUESTIONS, haystack, generator())
    batch = draw_streams(starts, 256, QUESTIONS, haystack, generator())
    assert torch.isfinite(task.loss(model_of(task), batch))


def test_the_record_is_read_without_an_import_and_no_folder_is_read(tmp_path: Path) -> None:
    record = next(info for info in TASKS.infos() if info.id == "passkey")
    assert record == Passkey.info
    assert record.probe
    with pytest.raises(UsageError, match="generates"):
        Passkey(Pattern.CAUSAL_SELF, Scale.TINY, tmp_path)
    hashes = {Passkey(Pattern.CAUSAL_SELF, scale).data_hash for scale in record.scales}
    assert len(hashes) == 3
