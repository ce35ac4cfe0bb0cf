"""Associative recall: the generator's distribution, the started circuits, the scores."""

from __future__ import annotations

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
from tasks.associative_recall.problem import (
    BLANK,
    Vocabulary,
    draw_pairs,
    question_slots,
    source_batch,
    stream_batch,
)
from tasks.associative_recall.task import AssociativeRecall, state_size
from tasks.backbones.recall import StreamRecall, one_place_on, places
from tasks.problems.recall import look_up

PATTERNS = AssociativeRecall.info.patterns
WORDS = Vocabulary(keys=20, values=30)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    # At these sizes a second thread costs more than it gives, most of all on a busy machine.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model_of(task: AssociativeRecall, attention: type[Attention] = SoftmaxAttention) -> nn.Module:
    torch.manual_seed(0)
    return task.build(Slots(task.pattern, attention, SoftmaxAttention)).eval()


# The generator


def test_keys_and_values_are_distinct_and_uniform() -> None:
    drawn = draw_pairs(4000, 5, WORDS, generator())
    assert all(len(set(row.tolist())) == 5 for row in drawn.keys[:100])
    assert all(len(set(row.tolist())) == 5 for row in drawn.values[:100])
    for tokens, first, count in ((drawn.keys, 1, 20), (drawn.values, 21, 30)):
        share = torch.bincount(tokens.flatten(), minlength=51)[first : first + count] / 20000
        # Four standard deviations of a share of 20,000 draws.
        assert (share - 1 / count).abs().max() < 4 * (1 / count / 20000) ** 0.5
        assert share.sum() == pytest.approx(1)


def test_first_question_follows_the_power_law() -> None:
    slots = question_slots(20000, 3, 8, generator())
    odds = torch.arange(1.0, 9.0) ** -0.99
    share = torch.bincount(slots[:, 0], minlength=8) / 20000
    torch.testing.assert_close(share, odds / odds.sum(), atol=4 * 0.5 / 20000**0.5, rtol=0)
    assert all(len(set(row)) == 3 for row in slots[:100].tolist())


def test_a_stream_holds_the_pairs_and_then_every_key_once() -> None:
    drawn = draw_pairs(50, 6, WORDS, generator())
    batch = stream_batch(drawn, 40, WORDS, generator(1))
    tokens, read = batch["tokens"], batch["read"]
    assert torch.equal(tokens[:, 0:12:2], drawn.keys)
    assert torch.equal(tokens[:, 1:12:2], drawn.values)
    assert torch.equal(tokens.gather(1, read), drawn.keys)
    assert (read >= 12).all()
    assert (read % 2 == 0).all()
    assert (tokens[:, 12:] != BLANK).sum(1).eq(6).all()
    assert torch.equal(batch["targets"] + WORDS.first_value, drawn.values)


def test_pairs_that_do_not_fit_are_refused() -> None:
    drawn = draw_pairs(1, 6, WORDS, generator())
    with pytest.raises(ValueError, match="6 pairs"):
        stream_batch(drawn, 22, WORDS, generator())
    assert stream_batch(drawn, 24, WORDS, generator())["tokens"].shape == (1, 24)


def test_a_source_is_asked_for_all_its_keys() -> None:
    drawn = draw_pairs(50, 6, WORDS, generator())
    batch = source_batch(drawn, WORDS, generator(1))
    assert torch.equal(batch["asked"].sort().values, drawn.keys.sort().values)
    place = (drawn.keys[:, None] == batch["asked"][..., None]).int().argmax(-1)
    assert torch.equal(drawn.values.gather(1, place), batch["targets"] + WORDS.first_value)
    assert not torch.equal(batch["asked"], drawn.keys)


def test_look_up_reads_behind_the_first_occurrence() -> None:
    stream = torch.tensor([[3, 11, 5, 12, 0, 5, 0, 3]])
    assert look_up(stream, torch.tensor([[7, 5]])).tolist() == [[11, 12]]


# The backbone


def test_a_rotation_moves_every_place_on_by_one() -> None:
    where = places(40, 16)
    torch.testing.assert_close(where[1:], where[:-1] @ one_place_on(16).T, atol=1e-4, rtol=0)
    torch.testing.assert_close(where.square().mean(-1), torch.ones(40))
    likeness = where @ where.T / 16
    apart = likeness - 2 * torch.eye(40)
    assert apart.max() < 0.9


def test_the_first_layer_starts_by_looking_at_the_token_before() -> None:
    task = AssociativeRecall(Pattern.CAUSAL_SELF, Scale.SMALL)
    model = model_of(task)
    assert isinstance(model, StreamRecall)
    batch = task.draw(2, 8, 64, generator())
    what = model.token(batch["tokens"])
    x = torch.cat([what, places(64, what.shape[-1]).expand_as(what)], dim=-1)
    layer = model.layers[0]
    q, k = (
        linear(layer.norm(x)).unflatten(-1, (task.setting.heads, -1)).transpose(1, 2)
        for linear in (layer.attention.query, layer.attention.key)
    )
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    logits = logits.masked_fill(torch.ones(64, 64).triu(1).bool(), float("-inf"))
    assert (logits.mean(1)[:, 2:].argmax(-1) == torch.arange(1, 63)).float().mean() > 0.95


def test_a_source_is_looked_up_from_the_start() -> None:
    task = AssociativeRecall(Pattern.NONCAUSAL_CROSS, Scale.SMALL)
    assert task.evaluate(model_of(task), "test", 0)["accuracy"] > 0.9


@pytest.mark.parametrize("attention", [SoftmaxAttention, NoAttention])
def test_a_stream_does_not_see_what_comes_later(attention: type[Attention]) -> None:
    task = AssociativeRecall(Pattern.CAUSAL_SELF, Scale.TINY)
    model = model_of(task, attention)
    batch = task.draw(3, 4, 64, generator())
    read = torch.arange(64).expand(3, -1)
    changed = batch["tokens"].clone()
    changed[:, 30:] = changed[:, 30:].flip(1)
    before, after = (model(tokens, read) for tokens in (batch["tokens"], changed))
    torch.testing.assert_close(before[:, :30], after[:, :30])
    cut = model(batch["tokens"][:, :30], read[:, :30])
    torch.testing.assert_close(before[:, :30], cut, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_attention_knows_nothing_of_the_pairs(pattern: Pattern) -> None:
    task = AssociativeRecall(pattern, Scale.TINY)
    model = model_of(task, NoAttention)
    batch = task.draw(3, 4, 32, generator())
    if pattern.cross:
        before = model(batch["asked"], batch["keys"], batch["values"])
        after = model(batch["asked"], batch["keys"], batch["values"].flip(1))
    else:
        tokens = batch["tokens"].clone()
        tokens[:, 1:8:2] = tokens[:, 1:8:2].flip(1)
        before, after = model(batch["tokens"], batch["read"]), model(tokens, batch["read"])
    assert torch.equal(before, after)


# The task


@pytest.mark.parametrize("pattern", PATTERNS)
def test_batches_are_a_function_of_the_seed(pattern: Pattern) -> None:
    task = AssociativeRecall(pattern, Scale.TINY)
    first, again = (task.training_batch(generator(3)) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    widths = {task.training_batch(generator(seed))["targets"].shape[1] for seed in range(30)}
    assert widths == set(task.setting.pairs)


class Table(nn.Module):
    """Answers by looking up; every ``wrong``-th question of a problem by value 0."""

    def __init__(self, words: Vocabulary, wrong: int = 0) -> None:
        super().__init__()
        self.words, self.wrong = words, wrong
        self.parameter = nn.Parameter(torch.zeros(()))

    def forward(self, tokens: Tensor, read: Tensor) -> Tensor:
        answers = look_up(tokens, read) - self.words.first_value
        if self.wrong:
            answers[:, :: self.wrong] = -1
        return 100.0 * (answers[..., None] == torch.arange(self.words.values)).float()


def test_scores_of_models_that_are_known() -> None:
    task = AssociativeRecall(Pattern.CAUSAL_SELF, Scale.TINY)
    perfect = task.evaluate(Table(task.setting.vocabulary), "test", 0)
    assert perfect["accuracy"] == perfect["accuracy_16_pairs"] == 1
    assert perfect["cross_entropy"] < 1e-6
    half = task.evaluate(Table(task.setting.vocabulary, wrong=2), "test", 0)
    # Wrong answers are uniform over the values, so they are right once in 32.
    assert half["accuracy_4_pairs"] == pytest.approx(0.5, abs=0.06)
    declared = {metric.name for metric in task.info.metrics}
    assert {*perfect} <= declared


@pytest.mark.parametrize("pattern", PATTERNS)
def test_references(pattern: Pattern) -> None:
    task = AssociativeRecall(pattern, Scale.SMALL)
    values = task.references(0)
    assert {*values} == {reference.name for reference in task.info.references}
    assert values["look-up"] == 1
    assert values["chance"] == 1 / 256
    # To answer every question with the value of the first is one way to name a shown value.
    shares = [
        (batch["targets"] == batch["targets"][:, :1]).double().mean().item()
        for _, length, batch in task.evaluated("test", 0)
        if length == 256
    ]
    assert sum(shares) / len(shares) == pytest.approx(values["any-value-shown"])


def test_state_is_counted_per_head_and_layer() -> None:
    task = AssociativeRecall(Pattern.CAUSAL_SELF, Scale.TINY)
    model = model_of(task)
    assert isinstance(model, StreamRecall)
    assert state_size(model, 64) == 64 * (16 + 16)
    none = model_of(task, NoAttention)
    assert isinstance(none, StreamRecall)
    assert state_size(none, 64) == 0


class Untold(SoftmaxAttention):
    """Does not tell its state."""

    def state_size(self, length: int) -> int:
        raise NotImplementedError


def test_an_untold_state_is_left_out() -> None:
    task = AssociativeRecall(Pattern.CAUSAL_SELF, Scale.TINY)
    assert "state_size" in task.evaluate(model_of(task), "test", 0)
    assert "state_size" not in task.evaluate(model_of(task, Untold), "test", 0)


def _silent(**_: object) -> None:
    """A report to nobody."""


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_tiny_cell_from_end_to_end(pattern: Pattern) -> None:
    task = AssociativeRecall(pattern, Scale.TINY)
    scores = []
    for _ in range(2):
        torch.manual_seed(0)
        slots = Slots(pattern, SoftmaxAttention, SoftmaxAttention)
        model = task.build(slots)
        train(task, model, slots.candidates, 0, _silent)
        scores.append(evaluate(task, model, "test", 0, task.recipe))
    assert scores[0] == scores[1]
    assert scores[0]["accuracy"] > 3 * task.references(0)["chance"]
    chart = task.artifacts(model, 0)[0]
    assert chart.suffix == "vl.json"


@pytest.mark.parametrize("pattern", PATTERNS)
def test_scale_base_builds(pattern: Pattern) -> None:
    task = AssociativeRecall(pattern, Scale.BASE)
    model = model_of(task)
    batch = task.draw(1, 256, 1024, generator())
    assert torch.isfinite(task.loss(model, batch))


def test_the_record_is_read_without_an_import_and_no_folder_is_read(tmp_path: Path) -> None:
    record = next(info for info in TASKS.infos() if info.id == "associative-recall")
    assert record == AssociativeRecall.info
    assert record.probe
    with pytest.raises(UsageError, match="generates"):
        AssociativeRecall(Pattern.CAUSAL_SELF, Scale.TINY, tmp_path)
    hashes = {AssociativeRecall(Pattern.CAUSAL_SELF, scale).data_hash for scale in record.scales}
    assert len(hashes) == 3
