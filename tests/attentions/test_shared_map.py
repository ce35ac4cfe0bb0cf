"""Layers that take the attention map of another one."""

import pytest
import torch

from attentions.shared_map import SharedMap
from attentions.softmax import SoftmaxAttention
from cab import Pattern, Slots
from cab.code_hash import TRAINING_METHODS, reached
from cab.registries import ATTENTIONS
from tasks.backbones.transformer import CrossAttentionLayer
from tests.attentions.cases import error, module, qkv
from tests.attentions.wired_cases import (
    HEADS,
    WIDTH,
    Text,
    calls,
    embedded,
    mixed_with,
    projected,
    split,
    stack,
    tokens,
)


def of_formula(formula):
    return ATTENTIONS.class_at(ATTENTIONS.resolve(formula).target)


@pytest.mark.parametrize("pattern", ["NS", "CS", "NC", "CC"])
def test_a_slot_alone_is_softmax_attention(pattern):
    q, k, v = qkv(13 if pattern.endswith("C") else 19)
    want = module("softmax", pattern)(q, k, v)
    assert error(module("shared-map", pattern)(q, k, v), want) <= 1e-12


@pytest.mark.parametrize(
    ("formula", "sources"),
    [
        ("shared-map:3,softmax:1", [0, 0, 0]),
        ("softmax:1,shared-map:1", [0, 0, 2, 2]),
        ("softmax:1,shared-map:2", [0, 0, 0, 3, 3]),
        ("shared-map:1,softmax:1", [0, 1, 1, 3, 3]),
    ],
)
def test_layers_take_the_map_of_the_nearest_layer_of_another_mechanism(formula, sources):
    model, slots = stack(of_formula(formula), layers=len(sources))
    ids = tokens()
    out, seen = calls(model, slots, ids)
    x, made = embedded(model, ids), []
    for layer, source, (q, k, _) in zip(model.layers, sources, seen, strict=True):
        made.append(projected(layer, layer.attention_norm(x)))
        assert error(q, split(made[source][0])) <= 1e-12
        assert error(k, split(made[source][1])) <= 1e-12
        x = mixed_with(layer, x, *made[source])
    assert error(out, model.readout(model.norm(x))) <= 1e-12


def test_no_output_hears_of_later_tokens():
    model, _ = stack(SharedMap)
    ids = tokens()
    other = torch.cat([ids[:, :6], (ids[:, 6:] + 1) % 7], dim=1)
    assert error(model(other)[:, :6], model(ids)[:, :6]) <= 1e-12
    assert error(model(ids[:, :6]), model(ids)[:, :6]) <= 1e-12


def test_the_map_is_trained_by_every_layer_that_has_it():
    model, _ = stack(SharedMap)
    model.train()(tokens()).square().sum().backward()
    first, *others = (layer.attention for layer in model.layers)
    assert first.query.weight.grad.abs().sum() > 0
    assert all(held.query.weight.grad is None for held in others)


@pytest.mark.parametrize("name", ["decon-static-qk", "decon-fixedseq-qk"])
@pytest.mark.parametrize("formula", ["{}:1,shared-map:1", "shared-map:1,{}:1,shared-map:1"])
def test_the_map_is_that_which_the_other_layer_has_used(name, formula):
    """Whichever of two mechanisms has hooked into a projection first."""
    model, slots = stack(of_formula(formula.format(name)), layers=3)
    _, seen = calls(model, slots, tokens())
    index = 0 if formula.startswith("{") else 1
    for used, shared in zip(seen[index][:2], seen[index + 1][:2], strict=True):
        assert torch.equal(used, shared)


@pytest.mark.parametrize("other", ["shared-map", "decon-static-qk", "decon-fixedseq-qk"])
def test_a_stream_beside_the_tokens_is_not_mixed_with_them(other):
    with pytest.raises(NotImplementedError, match="stands beside none"):
        stack(of_formula(f"decon-rnd-qk:1,{other}:1"))


def test_cross_slots_share_the_map_of_the_same_source():
    slots = Slots(Pattern.CAUSAL_CROSS, SharedMap, SoftmaxAttention)
    layers = torch.nn.ModuleList(
        CrossAttentionLayer(slots.layer(i, of=2, max_length=16), Pattern.CAUSAL_SELF,
                            Pattern.CAUSAL_CROSS, WIDTH, HEADS)
        for i in range(2)
    )  # fmt: skip
    SharedMap.wire(layers, slots.candidates, Text())
    seen = []
    for slot in slots.candidates:
        slot.register_forward_pre_hook(lambda _, args: seen.append(args))
    x, source = torch.randn(2, 5, WIDTH), torch.randn(2, 9, WIDTH)
    layers[1](layers[0](x, source), source)
    (q, k, v, _), (p, j, w, _) = seen
    assert torch.equal(q, p)
    assert torch.equal(k, j)
    assert not torch.equal(v, w)


def test_keys_cover_the_wiring():
    units = reached(ATTENTIONS.resolve("shared-map").target, TRAINING_METHODS).units
    assert any(unit == "wire" for *_, unit in units)
