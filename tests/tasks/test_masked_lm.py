"""Masked language modelling; the text pipeline is tested with language modelling."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from attentions.softmax_exact import ExactSoftmaxAttention
from cab import Attention, Batch, Pattern, Scale, Slots
from cab.errors import DataError
from tasks.backbones.multihead import MultiHeadAttention
from tasks.masked_lm.task import MaskedLanguageModeling

CANDIDATES = [SoftmaxAttention, ExactSoftmaxAttention, NoAttention]


@pytest.fixture(scope="module")
def task() -> MaskedLanguageModeling:
    return MaskedLanguageModeling(Pattern.NONCAUSAL_SELF, Scale.TINY)


def build(task: MaskedLanguageModeling, candidate: type[Attention], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return task.build(Slots(task.pattern, candidate, SoftmaxAttention, seed=seed))


def draw(task: MaskedLanguageModeling, seed: int) -> Batch:
    return task.training_batch(torch.Generator().manual_seed(seed))


def test_batches_follow_the_generator(task: MaskedLanguageModeling) -> None:
    one, same, other = draw(task, 1), draw(task, 1), draw(task, 2)
    assert one["tokens"].shape == (task.recipe.batch_size, task.length()[0])
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["tokens"], other["tokens"])
    assert not torch.equal(one["masked"], other["masked"])


def test_hidden_characters_never_reach_the_model(task: MaskedLanguageModeling) -> None:
    window = task.corpus.train.windows(torch.arange(8) * 1000, task.length()[0])
    hidden = task.mask(window, torch.Generator().manual_seed(0))
    count = round(0.2 * window.shape[1])
    assert hidden["masked"].shape == (8, count)
    assert (hidden["tokens"] == task.mask_id).sum(1).tolist() == [count] * 8
    assert (hidden["tokens"].gather(1, hidden["masked"]) == task.mask_id).all()
    assert torch.equal(hidden["targets"], window.gather(1, hidden["masked"]))
    elsewhere = hidden["tokens"] != task.mask_id
    assert torch.equal(hidden["tokens"][elsewhere], window[elsewhere])

    other_letters = (hidden["targets"] + 1) % task.corpus.vocabulary.size
    changed = window.scatter(1, hidden["masked"], other_letters)
    again = task.mask(changed, torch.Generator().manual_seed(0))
    assert torch.equal(again["tokens"], hidden["tokens"])
    assert torch.equal(again["masked"], hidden["masked"])


def test_context_on_both_sides_matters(task: MaskedLanguageModeling) -> None:
    model = build(task, SoftmaxAttention).eval()
    tokens = draw(task, 0)["tokens"][:1]
    middle = torch.tensor([[tokens.shape[1] // 2]])
    for side in (0, tokens.shape[1] - 1):
        changed = tokens.clone()
        changed[:, side] = (changed[:, side] + 1) % task.corpus.vocabulary.size
        with torch.no_grad():
            assert not torch.equal(model(tokens, middle), model(changed, middle))


def test_untrained_loss_is_that_of_the_uniform_distribution(task: MaskedLanguageModeling) -> None:
    loss = task.loss(build(task, SoftmaxAttention), draw(task, 0)).item()
    assert loss == pytest.approx(math.log(task.corpus.vocabulary.size), rel=0.1)


def test_backbone_is_the_same_for_every_candidate(task: MaskedLanguageModeling) -> None:
    models = [build(task, candidate, seed=3) for candidate in CANDIDATES]
    first = models[0].state_dict()
    for model in models[1:]:
        state = model.state_dict()
        assert state.keys() == first.keys()
        assert all(torch.equal(state[name], first[name]) for name in first)


def test_every_layer_starts_as_similarity_and_copy(task: MaskedLanguageModeling) -> None:
    layers = [m for m in build(task, NoAttention).modules() if isinstance(m, MultiHeadAttention)]
    assert layers
    for layer in layers:
        identity = torch.eye(layer.value.weight.shape[0])
        assert torch.equal(layer.query.weight, layer.key.weight)
        assert torch.equal(layer.value.weight, identity)
        assert torch.equal(layer.output.weight, identity)
        torch.testing.assert_close(layer.query.weight @ layer.query.weight.T, identity)


def test_one_step_lowers_the_loss(task: MaskedLanguageModeling) -> None:
    model = build(task, SoftmaxAttention)
    batch = draw(task, 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    before = task.loss(model, batch)
    before.backward()
    optimizer.step()
    assert task.loss(model, batch).item() < before.item()


def test_evaluation_masks_are_fixed(task: MaskedLanguageModeling) -> None:
    model = build(task, SoftmaxAttention).eval()
    with torch.no_grad():
        once = task.evaluate(model, "test", 0)
        draw(task, 5)
        again = task.evaluate(model, "test", task.evaluation_seed(1))
    assert list(once) == [metric.name for metric in task.info.metrics]
    assert once == again
    bits = once["bits_per_masked_character"]
    assert once["perplexity"] == pytest.approx(2**bits)
    assert bits == pytest.approx(math.log2(task.corpus.vocabulary.size), rel=0.1)


def test_data_dir_is_checked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train is missing; expected .*train/\*\.txt"):
        MaskedLanguageModeling(Pattern.NONCAUSAL_SELF, Scale.TINY, tmp_path)


def by_hand(dim: int, layers: int, length: int, characters: int) -> int:
    """Parameters of a pre-norm Transformer with feed-forward layers of 4 times the width."""
    attention = 4 * (dim * dim + dim)
    feed_forward = dim * 4 * dim + 4 * dim + 4 * dim * dim + dim
    layer = attention + feed_forward + 2 * 2 * dim
    ends = (characters + 1) * dim + 2 * dim + dim * characters + characters
    return ends + length * dim + layers * layer


def test_parameters_at_paper_scale() -> None:
    """RoBERTa base: its 12 layers have 85 million parameters."""
    task = MaskedLanguageModeling(Pattern.NONCAUSAL_SELF, Scale.PAPER)
    parameters = sum(p.numel() for p in build(task, SoftmaxAttention).parameters())
    assert parameters == by_hand(768, 12, 2048, task.corpus.vocabulary.size)
    assert 86.7e6 < parameters < 87.1e6
    assert task.length() == (2048, 2048)
    assert task.recipe.batch_size * task.recipe.accumulate == 256
    window = torch.zeros(2, 2048, dtype=torch.long)
    hidden = task.mask(window, torch.Generator().manual_seed(0))
    assert hidden["masked"].shape == (2, round(0.15 * 2048))


def test_base_scale_takes_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    task = MaskedLanguageModeling(Pattern.NONCAUSAL_SELF, Scale.BASE)
    monkeypatch.setattr(MaskedLanguageModeling, "recipe", replace(task.recipe, batch_size=2))
    model = build(task, SoftmaxAttention)
    characters = task.corpus.vocabulary.size
    assert sum(p.numel() for p in model.parameters()) == by_hand(256, 6, 256, characters)
    batch = draw(task, 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    before = task.loss(model, batch)
    before.backward()
    optimizer.step()
    assert task.loss(model, batch).item() < before.item()
