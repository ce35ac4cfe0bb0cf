"""Analyses of trained models, on slots whose maps and gradients are known."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from cab import Attention, AttentionContext, AttentionSpec, Pattern, Recipe
from cab.registries import ATTENTIONS
from runners.analysis.analyse import ANALYSES, analyse
from runners.analysis.calls import Call, changed_queries, recorded
from runners.analysis.maps import attention_map, map_statistics, mapped, mean_statistics
from runners.analysis.perturbation import loss_rises

HEADS, DIM, LENGTH = 2, 8, 19


def slot(name, pattern=Pattern.CAUSAL_SELF, **options):
    torch.manual_seed(0)
    cls = ATTENTIONS.load(ATTENTIONS.resolve(name))
    spec = AttentionSpec(pattern, HEADS, DIM, max_length=64, embed_dim=HEADS * DIM)
    return cls(spec, **{**cls.info.defaults(), **options}).eval()


def call_of(module, length_q=LENGTH, length_k=LENGTH, context=None):
    generator = torch.Generator().manual_seed(1)
    q = torch.randn(2, HEADS, length_q, DIM, generator=generator)
    k, v = (torch.randn(2, HEADS, length_k, DIM, generator=generator) for _ in range(2))
    return Call(module, q, k, v, context)


def softmax_weights(call, mask=None):
    scores = call.q @ call.k.transpose(-1, -2) / DIM**0.5
    return (scores if mask is None else scores.masked_fill(~mask, -math.inf)).softmax(-1)


def test_the_map_of_softmax_is_its_weights():
    call = call_of(slot("softmax"))
    want = softmax_weights(call, torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril())
    torch.testing.assert_close(attention_map(call), want)


def test_masked_keys_and_queries_are_left_out():
    mask = torch.ones(2, LENGTH, dtype=torch.bool)
    mask[:, 11:] = False
    context = AttentionContext(query_mask=mask, key_mask=mask)
    call = call_of(slot("softmax", Pattern.NONCAUSAL_SELF), context=context)
    found = attention_map(call)
    assert found[..., 11:].abs().max() == 0
    rows = softmax_weights(call, mask[:, None, None])[..., :11, :]
    entropy = torch.special.entr(rows).sum(-1).mean().item()
    assert map_statistics(call, found)["attention_entropy"] == pytest.approx(entropy, rel=1e-4)


@pytest.mark.parametrize("name", ["softmax-exact", "linear-elu", "local", "lla", "parallax"])
def test_every_mechanism_that_is_linear_in_its_values_has_a_map(name):
    inputs = torch.randn(2, LENGTH, HEADS * DIM, generator=torch.Generator().manual_seed(4))
    context = AttentionContext(query_input=inputs, key_input=inputs)
    call = call_of(slot(name), context=context)
    found = attention_map(call)
    out = call.module(call.q, call.k, call.v, context)
    torch.testing.assert_close(found @ call.v, out, **LOOSE)
    torch.testing.assert_close(found.sum(-1), torch.ones(found.shape[:-1]), **LOOSE)


LOOSE = {"rtol": 1e-3, "atol": 1e-3}


class Squares(Attention):
    """Not linear in its values."""

    def forward(self, q, k, v, context=None):
        return v.square()


def test_a_mechanism_that_is_not_linear_has_none():
    call = call_of(Squares(AttentionSpec(Pattern.CAUSAL_SELF, HEADS, DIM)))
    assert attention_map(call) is None
    assert mean_statistics(mapped([call])) == {}


class Shift(Attention):
    """Every query attends to the key so many places before it (the first ones to themselves)."""

    def forward(self, q, k, v, context=None):
        return torch.cat([v[:, :, :4], v[:, :, :-4]], dim=2)


def test_entropy_and_distance_of_known_maps():
    pointing = call_of(Shift(AttentionSpec(Pattern.CAUSAL_SELF, HEADS, DIM)))
    found = map_statistics(pointing, attention_map(pointing))
    assert found["attention_entropy"] == pytest.approx(0, abs=1e-6)
    assert found["attention_distance"] == pytest.approx((LENGTH - 4) / LENGTH * 4 / (LENGTH - 1))
    even = call_of(slot("softmax", Pattern.NONCAUSAL_SELF))
    flat = torch.full((2, HEADS, LENGTH, LENGTH), 1 / LENGTH)
    found = map_statistics(even, flat)
    assert found["attention_entropy"] == pytest.approx(math.log(LENGTH))
    places = torch.linspace(0, 1, LENGTH)
    want = (places[:, None] - places[None]).abs().mean().item()
    assert found["attention_distance"] == pytest.approx(want)
    assert found["attention_negative_mass"] == 0


def test_distance_on_a_grid_is_euclidean():
    context = AttentionContext(query_grid=(3, 3))
    call = call_of(slot("softmax", Pattern.NONCAUSAL_SELF), 9, 9, context)
    corner = torch.zeros(2, HEADS, 9, 9)
    corner[..., 8] = 1.0  # all look at the corner (1, 1)
    axis = torch.linspace(0, 1, 3)
    want = torch.cdist(torch.cartesian_prod(axis, axis), torch.ones(1, 2)).mean().item()
    assert map_statistics(call, corner)["attention_distance"] == pytest.approx(want)


def test_negative_weights_have_a_mass_and_no_entropy():
    call = call_of(slot("softmax", Pattern.NONCAUSAL_SELF))
    found = torch.full((2, HEADS, LENGTH, LENGTH), 0.0)
    found[..., 0], found[..., 1] = 1.5, -0.5
    assert map_statistics(call, found) == {"attention_negative_mass": 0.5}


def test_the_first_call_is_recorded_and_hooks_are_gone_afterwards():
    module = slot("softmax")
    call = call_of(module)
    with recorded([module]) as calls:
        module(call.q, call.k, call.v)
        module(call.q + 1, call.k, call.v)
    assert len(calls) == 1
    assert torch.equal(calls[0].q, call.q)
    with changed_queries([module], lambda module, q, k, v, context: q * 0):
        pass
    assert not module._forward_pre_hooks


class Dot(Attention):
    """The output is the query."""

    def forward(self, q, k, v, context=None):
        return q


def test_the_adversary_goes_along_the_gradient():
    module = Dot(AttentionSpec(Pattern.CAUSAL_SELF, 1, DIM))
    q = torch.randn(3, 1, 5, DIM, generator=torch.Generator().manual_seed(2))
    target = torch.randn(DIM, generator=torch.Generator().manual_seed(3))

    def loss():  # linear in q: the rise is eps |q| |target|, and at random less
        return (module(q, q, q) @ target).sum()

    found = loss_rises(loss, [module])
    want = (0.5 * q.norm(dim=-1).sum() * target.norm()).item()
    assert found["loss_rise_adversarial_0.5"] == pytest.approx(want, rel=1e-4)
    assert found["loss_rise_adversarial_0.1"] == pytest.approx(want / 5, rel=1e-3)
    assert abs(found["loss_rise_random_0.5"]) < want


def test_a_slot_that_reads_no_query_cannot_be_disturbed():
    module = slot("none")
    call = call_of(module)
    found = loss_rises(lambda: module(call.q, call.k, call.v).sum(), [module])
    assert set(found.values()) == {0.0}


def test_the_gradient_of_an_earlier_slot_passes_through_a_later_one():
    first, second = slot("softmax"), slot("softmax")
    q = call_of(first).q

    def loss():
        middle = first(q, q, q)
        return second(middle, middle, middle).square().sum()

    found = loss_rises(loss, [first])
    assert found["loss_rise_adversarial_0.1"] > abs(found["loss_rise_random_0.1"])


def test_a_model_is_analysed_as_a_whole_and_left_as_it_was():
    model = nn.ModuleList([slot("softmax")])
    q = call_of(model[0]).q
    task = SimpleNamespace(
        training_batch=lambda generator: {"q": q},
        loss=lambda model, batch: model[0](batch["q"], batch["q"], batch["q"]).square().mean(),
        recipe=Recipe(steps=1, batch_size=1, learning_rate=1.0),
        evidence=lambda batch: None,
    )
    state = torch.random.get_rng_state()
    found = analyse(task, model, [model[0]], "cpu")
    assert set(found) == {
        analysis.name
        for analysis in ANALYSES
        if analysis.name != "density" and not analysis.name.startswith("evidence")
    }
    assert torch.equal(torch.random.get_rng_state(), state)
    assert found == analyse(task, model, [model[0]], "cpu")
    assert analyse(task, model, [], "cpu") == {}
