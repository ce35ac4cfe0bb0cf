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
from tasks.passkey.model import PlacedRecall
from tasks.passkey.problem import (
    Haystack,
    draw_places,
    draw_places_spread,
    draw_streams,
    places,
)
from tasks.passkey.task import Passkey
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


def test_needles_asked_for_are_spread_and_no_place_is_special() -> None:
    """One in each part, uniform there, so that over all streams every place is as likely."""
    starts, part = draw_places_spread(6000, 36, 2, HAYSTACK, generator())
    assert all(len(set(row)) == 4 for row in starts[:300].tolist())
    assert torch.equal(part.sort(1).values, torch.arange(2).expand(6000, -1))
    assert torch.equal(starts[:, :2] // 8, part)
    assert (part[:, 0].double().mean() - 0.5).abs() < 4 * 0.5 / 6000**0.5
    for columns in (slice(0, 2), slice(2, 4)):
        share = torch.bincount(starts[:, columns].flatten(), minlength=16) / 12_000
        assert (share - 1 / 16).abs().max() < 4 * (1 / 16 / 12_000) ** 0.5


def test_streams_hold_needles_filler_and_questions() -> None:
    starts = draw_places(200, 40, 2, HAYSTACK, generator())
    batch = draw_streams(starts, 40, 2, HAYSTACK, generator(1), longest=44)
    tokens, read, targets = batch["tokens"], batch["read"], batch["targets"]
    assert set(batch["first"].tolist()) == {0, 1, 2, 3, 4}
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
    with pytest.raises(ValueError, match="4 needles"):
        draw_places_spread(1, 8, 2, HAYSTACK, generator())


# The effective length


def test_effective_length_of_models_that_are_known() -> None:
    assert effective_length({64: 1.0, 256: 1.0}, guess=0.25) == 256
    assert effective_length({64: 0.25, 256: 0.2}, guess=0.25) == 0
    # Half of the needles retrieved, the others guessed.
    assert effective_length({64: 0.5 + 0.5 * 0.1}, guess=0.1) == pytest.approx(32)
    assert effective_length({64: 1.0, 256: 0.1}, guess=0.1) == 64


@pytest.mark.parametrize("window", [32, 96])
def test_effective_length_of_a_window_is_the_window(window: int) -> None:
    """Needles within the last tokens are retrieved, the others guessed: at any longer length."""
    guess = 0.1
    for length in (128, 512, 1024):
        within = window / length
        accuracy = within + (1 - within) * guess
        assert effective_length({length: accuracy}, guess) == pytest.approx(window)


def test_interval_without_doubt_is_a_point() -> None:
    right = {64: torch.ones(20, 4), 128: torch.zeros(20, 4)}
    assert effective_length_interval(right, 0.25, generator(0)) == (64, 64)
    assert effective_length_interval({64: torch.zeros(20, 4)}, 0.25, generator(0)) == (0, 0)


def test_interval_narrows_with_streams_and_repeats() -> None:
    def width(streams: int) -> float:
        right = {128: (torch.rand(streams, 8, generator=generator(2)) < 0.6).double()}
        low, high = effective_length_interval(right, 0.0, generator(0))
        assert low < effective_length({128: right[128].mean().item()}, 0.0) < high
        return high - low

    assert width(800) == pytest.approx(width(50) / 4, rel=0.3)
    assert width(50) == width(50)


def test_interval_covers_the_true_length() -> None:
    # True accuracies 0.95 and 0.6: the effective length is that of the longer one.
    covered = 0
    for seed in range(60):
        draws = torch.rand(2, 32, 4, generator=generator(seed))
        right = {64: draws[0] < 0.95, 128: draws[1] < 0.6}
        low, high = effective_length_interval(right, 0.0, generator(seed))
        covered += low <= 0.6 * 128 <= high
    # 57 are expected; three standard deviations less.
    assert covered >= 57 - 3 * (60 * 0.95 * 0.05) ** 0.5


# The task


def test_batches_are_a_function_of_the_seed(task: Passkey) -> None:
    first, again = (task.training_batch(generator(3)) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    lengths = {task.training_batch(generator(seed))["tokens"].shape[1] for seed in range(300)}
    assert lengths == set(range(min(task.setting.trained), max(task.setting.trained) + 1, 2))
    assert first["targets"].shape == (task.recipe.batch_size, task.setting.questions)


@pytest.mark.parametrize("attention", [SoftmaxAttention, NoAttention])
def test_nothing_is_seen_before_it_comes(task: Passkey, attention: type[Attention]) -> None:
    model = model_of(task, attention)
    batch = task.training_batch(generator())
    tokens, first = batch["tokens"][:4, :32], batch["first"][:4]
    read = torch.arange(32).expand(4, -1)
    changed = torch.cat([tokens[:, :20], tokens[:, 20:].flip(1)], dim=1)
    before, after = model(tokens, read, first), model(changed, read, first)
    torch.testing.assert_close(before[:, :20], after[:, :20])
    cut = model(tokens[:, :20], read[:, :20], first)
    torch.testing.assert_close(before[:, :20], cut, atol=1e-5, rtol=1e-5)


def test_a_stream_stands_at_the_places_it_is_given(task: Passkey) -> None:
    """Its codes are those that a longer stream has there."""
    model = model_of(task)
    assert isinstance(model, PlacedRecall)
    width = model.codes.shape[1]
    seen: list[Tensor] = []
    model.layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    tokens, read = torch.zeros(2, 10, dtype=torch.long), torch.zeros(2, 1, dtype=torch.long)
    model(tokens, read, torch.tensor([0, 7]))
    model(tokens, read)
    assert torch.equal(seen[0][0, :, width:], model.codes[:10])
    assert torch.equal(seen[0][1, :, width:], model.codes[7:17])
    assert torch.equal(seen[1][1, :, width:], model.codes[:10])
    longest = max(task.setting.lengths)
    assert len(model.codes) == longest
    for seed in range(20):
        batch = task.training_batch(generator(seed))
        assert int(batch["first"].min()) >= 0
        assert int(batch["first"].max()) + batch["tokens"].shape[1] <= longest


class Near(nn.Module):
    """Retrieves what lies within ``reach`` tokens of the question."""

    def __init__(self, haystack: Haystack, reach: int) -> None:
        super().__init__()
        self.haystack, self.reach = haystack, reach
        self.parameter = nn.Parameter(torch.zeros(()))

    def forward(self, tokens: Tensor, read: Tensor, first: Tensor) -> Tensor:
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
    # The questions and the tokens between them take some of its reach.
    assert 16 <= near["effective_length"] <= 32
    assert near["effective_length_low"] <= near["effective_length"] <= near["effective_length_high"]
    within = task.evaluate(Near(haystack, 10_000), "validation", 0)
    assert "accuracy_128" not in within


def test_references(task: Passkey) -> None:
    values = task.references(0)
    assert values == {"look-up": 1, "chance": 1 / 16, "any-needle": 1 / 8}


def test_heat_map_shows_depth_and_length(task: Passkey) -> None:
    chart = task.artifacts(Near(task.setting.haystack, 32), 0)[0]
    specification = json.loads(chart.content)
    cells = next(iter(specification["datasets"].values()))
    assert len(cells) == task.setting.questions * len(task.setting.lengths)
    value = {(cell["row"], cell["column"]): cell["value"] for cell in cells}
    assert value["75% to 100%", "128"] > 0.5
    # Questions that are not answered are guessed with value 0.
    assert value["0% to 25%", "128"] < 0.3
    assert value["0% to 25%", "32"] == 1


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
    questions, longest = task.setting.questions, max(task.setting.lengths)
    starts = draw_places(1, 256, questions, haystack, generator())
    batch = draw_streams(starts, 256, questions, haystack, generator(), longest)
    assert torch.isfinite(task.loss(model_of(task), batch))


def test_the_record_is_read_without_an_import_and_no_folder_is_read(tmp_path: Path) -> None:
    record = next(info for info in TASKS.infos() if info.id == "passkey")
    assert record == Passkey.info
    assert record.probe
    with pytest.raises(UsageError, match="generates"):
        Passkey(Pattern.CAUSAL_SELF, Scale.TINY, tmp_path)
    hashes = {Passkey(Pattern.CAUSAL_SELF, scale).data_hash for scale in record.scales}
    assert len(hashes) == 3
