"""What the tasks that write tokens share: what the decoder may see, likelihood, greedy decoding."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from cab import Attention, Batch, Pattern, Scale, Slots, seeds
from tasks.autoregressive_super_resolution.task import AutoregressiveSuperResolution
from tasks.backbones.placed_encoder_decoder import PlacedEncoderDecoder
from tasks.digit_lines.task import DigitLines
from tasks.forecasting_tokens.task import ForecastingTokens
from tasks.sequence_transduction import (
    FIRST_TOKEN,
    TransductionTask,
    character_error_rate,
    target_tokens,
    token_losses,
)
from tasks.summarization.vocabulary import END, PADDING, START
from tasks.vowel_restoration.task import VowelRestoration

CC = Pattern.CAUSAL_CROSS
TASKS: tuple[type[TransductionTask], ...] = (
    DigitLines,
    VowelRestoration,
    AutoregressiveSuperResolution,
    ForecastingTokens,
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    # At these sizes a second thread costs more than it gives, most of all on a busy machine.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=TASKS, ids=lambda task: task.info.id)
def task(request) -> TransductionTask:
    return request.param(CC, Scale.TINY)


def model_of(
    task: TransductionTask, attention: type[Attention] = SoftmaxAttention
) -> PlacedEncoderDecoder:
    torch.manual_seed(0)
    model = task.build(Slots(CC, attention, SoftmaxAttention)).eval()
    assert isinstance(model, PlacedEncoderDecoder)
    return model


def batch_of(task: TransductionTask, seed: int = 0) -> Batch:
    return task.training_batch(seeds.generator(seed, "data"))


@torch.no_grad()
def said(task: TransductionTask, model: nn.Module, batch: Batch):
    return task.causal_outputs(model, batch)


def test_what_is_said_of_a_token_does_not_hang_on_it_or_on_later_ones(task) -> None:
    model, batch = model_of(task), batch_of(task)
    whole = said(task, model, batch)
    places = whole.shape[1]
    for place in (0, places // 2, places - 1):
        target = batch["target"].clone()
        # Another token of the task's own wherever there is one.
        later = target[:, place + 1 :]
        target[:, place + 1 :] = torch.where(later >= FIRST_TOKEN, FIRST_TOKEN, later)
        changed = said(task, model, {**batch, "target": target})
        torch.testing.assert_close(changed[:, : place + 1], whole[:, : place + 1])
        cut = said(task, model, {**batch, "target": batch["target"][:, : place + 2]})
        torch.testing.assert_close(cut, whole[:, : place + 1])


def test_it_hangs_on_earlier_tokens_and_on_the_source(task) -> None:
    model, batch = model_of(task), batch_of(task)
    whole = said(task, model, batch)
    target = batch["target"].clone()
    target[:, 1] = target[:, 1].roll(1)
    assert not torch.allclose(said(task, model, {**batch, "target": target}), whole)
    other = {**batch, "source": batch["source"].roll(1, 0)}
    assert not torch.allclose(said(task, model, other), whole)


def test_without_attention_the_source_is_not_seen(task) -> None:
    model, batch = model_of(task, NoAttention), batch_of(task)
    other = {**batch, "source": batch["source"].roll(1, 0)}
    torch.testing.assert_close(said(task, model, other), said(task, model, batch))


def test_rows_do_not_hang_on_what_stands_beside_them(task) -> None:
    """Nor on the padding that longer sources beside them bring."""
    model, batch = model_of(task), batch_of(task)
    whole = said(task, model, batch)
    for row in (0, 3):
        alone = {name: tensor[row : row + 1] for name, tensor in batch.items()}
        if alone["source"].dim() == 2:
            alone["source"] = alone["source"][:, : int((alone["source"] != PADDING).sum())]
        torch.testing.assert_close(said(task, model, alone)[0], whole[row], atol=1e-5, rtol=1e-4)


def test_problems_are_the_same_every_time_and_differ_by_split(task) -> None:
    for split in ("validation", "test"):
        first, second = task.problems(split, 0), type(task)(CC, Scale.TINY).problems(split, 0)
        assert first.keys() == second.keys() == {"source", "target"}
        assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(
        task.problems("validation", 0)["target"][:8], task.problems("test", 0)["target"][:8]
    )
    same = batch_of(task, 1)
    assert all(torch.equal(x, same[name]) for name, x in batch_of(task, 1).items())
    assert not torch.equal(batch_of(task, 2)["target"], same["target"])


def test_targets_begin_with_start_and_have_an_end_where_lengths_differ(task) -> None:
    target = batch_of(task)["target"]
    assert (target[:, 0] == START).all()
    shortest, longest = task.written
    assert target.shape[1] == longest + 1
    ends = (target == END).sum(1)
    assert (ends == (0 if shortest == longest else 1)).all()
    assert (target[:, 1:] != START).all()


def test_the_likelihood_is_that_of_every_token(task) -> None:
    model, batch = model_of(task), batch_of(task)
    with torch.no_grad():
        losses = token_losses(model, batch)
        odds = said(task, model, batch).log_softmax(-1)
        loss = task.loss(model, batch)
    wanted = batch["target"][:, 1:]
    expected = -odds.gather(2, wanted[..., None])[..., 0][wanted != PADDING]
    torch.testing.assert_close(losses.float(), expected)
    torch.testing.assert_close(loss, expected.mean())


def test_greedy_outputs_are_the_likeliest_tokens_of_their_own_prefix(task) -> None:
    model = model_of(task)
    batch = {name: tensor[:4] for name, tensor in batch_of(task).items()}
    with torch.no_grad():
        rows = task.outputs(model, batch)
    shortest, longest = task.written
    assert all(shortest <= len(row) <= longest for row in rows)
    assert all(token >= FIRST_TOKEN for row in rows for token in row)
    for number, row in enumerate(rows):
        alone = {name: tensor[number : number + 1] for name, tensor in batch.items()}
        written = torch.tensor([[START, *row, PADDING]])[:, : longest + 1]
        scores = said(task, model, {**alone, "target": written})[0, : len(row)]
        scores[:, :END] = float("-inf")
        if shortest:
            scores[:, END] = float("-inf")
        assert scores.argmax(-1).tolist() == row


def test_every_metric_and_reference_is_there(task) -> None:
    with torch.no_grad():
        found = task.evaluate(model_of(task), "test", 0)
    assert set(found) == {metric.name for metric in task.info.metrics}
    assert task.evaluate(model_of(task), "validation", 0).keys() == {"nll"}
    values = task.references(0)
    assert set(values) == {reference.name for reference in task.info.references}
    assert all(0 < value < 100 for value in values.values())


def test_a_witness_decodes_few(task) -> None:
    part = task.reduced()
    assert len(part.decoded_problems(0)["target"]) == 8 < task.decoded
    assert len(part.problems("test", 0)["target"]) == len(task.problems("test", 0)["target"])


def test_error_rates_by_hand() -> None:
    assert character_error_rate(["1234", "77"], ["1243", "7"]) == pytest.approx(100 * 3 / 5)
    rows = {"target": torch.tensor([[START, 6, 4, END, PADDING], [START, END, *[PADDING] * 3]])}
    assert target_tokens(rows) == [[6, 4], []]


@pytest.mark.parametrize("cls", TASKS, ids=lambda task: task.info.id)
def test_every_scale_can_be_built_and_trained(cls: type[TransductionTask]) -> None:
    for scale in (Scale.SMALL, Scale.BASE):
        task = cls(CC, scale)
        model = model_of(task).train()
        batch = {name: tensor[:2] for name, tensor in batch_of(task).items()}
        task.loss(model, batch).backward()
        queries, keys = task.length()
        assert batch["target"].shape[1] - 1 == queries
        assert batch["source"].shape[1] <= keys
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
