"""Queries and keys of embeddings, and of random embeddings: what they are in a model."""

import pytest
import torch
from torch import nn

from attentions.decon_fixedseq_qk import DeconFixedSeqQK
from attentions.decon_rnd_qk import DeconRndQK
from attentions.decon_static_qk import DeconStaticQK
from attentions.shared.second_stream import random_embeddings
from attentions.softmax import SoftmaxAttention
from cab import Pattern, Scale, Slots
from cab.code_hash import TRAINING_METHODS, reached
from cab.registries import ATTENTIONS, TASKS
from runners.wiring import WiredExperiment
from tasks.backbones.transformer import CrossAttentionLayer, SelfAttentionLayer
from tests.attentions.cases import error, module, qkv
from tests.attentions.wired_cases import (
    HEADS,
    LENGTH,
    WIDTH,
    Text,
    attend,
    calls,
    embedded,
    stack,
    tokens,
)

CLASSES = [DeconStaticQK, DeconRndQK, DeconFixedSeqQK]
NAMES = ["decon-static-qk", "decon-rnd-qk", "decon-fixedseq-qk"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pattern", ["NS", "CS"])
def test_a_slot_alone_is_softmax_attention_of_what_it_is_handed(name, pattern):
    q, k, v = qkv()
    assert error(module(name, pattern)(q, k, v), module("softmax", pattern)(q, k, v)) <= 1e-12


def test_static_queries_and_keys_are_of_the_embeddings_in_every_layer():
    model, _ = stack(DeconStaticQK)
    ids = tokens()
    x = embedded(model, ids)
    source = model.layers[0].attention_norm(x)
    for layer in model.layers:
        x = attend(layer, x, source)
    assert error(model(ids), model.readout(model.norm(x))) <= 1e-12


def beside(model, cls):
    """What goes through the layers beside the tokens."""
    if cls is DeconRndQK:
        return random_embeddings(LENGTH, WIDTH).double()[None]
    return embedded(model, Text.ids.flatten()[None, :LENGTH])


@pytest.mark.parametrize("cls", CLASSES[1:])
def test_queries_and_keys_are_of_another_sequence_that_went_through_the_layers(cls):
    model, _ = stack(cls)
    ids = tokens()
    x, z = embedded(model, ids), beside(model, cls)
    for layer in model.layers:
        source = layer.attention_norm(z)
        x = attend(layer, x, source.expand_as(x))
        z = attend(layer, z, source)
    assert error(model(ids), model.readout(model.norm(x))) <= 1e-12


@pytest.mark.parametrize("cls", CLASSES[1:])
def test_these_weights_are_the_same_for_every_input(cls):
    model, slots = stack(cls)
    _, one = calls(model, slots, tokens(2))
    _, other = calls(model, slots, tokens(3, seed=1))
    for (q, k, v), (p, j, w) in zip(one, other, strict=True):
        assert torch.equal(q[0], p[2])
        assert torch.equal(k[1], j[0])
        assert not torch.equal(v[0], w[0])


@pytest.mark.parametrize("cls", CLASSES)
def test_no_output_hears_of_later_tokens(cls):
    model, _ = stack(cls)
    ids = tokens()
    other = torch.cat([ids[:, :6], (ids[:, 6:] + 1) % 7], dim=1)
    assert error(model(other)[:, :6], model(ids)[:, :6]) <= 1e-12
    assert error(model(ids[:, :6]), model(ids)[:, :6]) <= 1e-12


@pytest.mark.parametrize("cls", CLASSES)
def test_a_pass_knows_nothing_of_the_one_before(cls):
    model, _ = stack(cls)
    first = model(tokens())
    model(tokens(5, 4, seed=3))
    assert torch.equal(model(tokens()), first)


@pytest.mark.parametrize("cls", CLASSES)
def test_all_that_makes_queries_and_keys_is_trained(cls):
    model, _ = stack(cls)
    model.train()(tokens()).square().sum().backward()
    for layer in model.layers:
        for projection in (layer.attention.query, layer.attention.value):
            assert projection.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
def test_in_a_hybrid_the_other_layers_are_as_they_were(name):
    """They attend within what goes beside the tokens too."""
    own, mixed = (ATTENTIONS.resolve(n).target for n in (name, f"softmax:1,{name}:1"))
    model, _ = stack(ATTENTIONS.class_at(mixed))
    ids = tokens()
    x, z = embedded(model, ids), beside(model, ATTENTIONS.class_at(own))
    static = model.layers[0].attention_norm(x)
    for index, layer in enumerate(model.layers):
        own, source = layer.attention_norm(x), layer.attention_norm(z)
        elsewhere = static if "static" in name else source.expand_as(x)
        x = attend(layer, x, elsewhere if index % 2 else own)
        z = attend(layer, z, source)
    assert error(model(ids), model.readout(model.norm(x))) <= 1e-12


def test_random_embeddings_of_a_place_do_not_hang_on_the_length():
    whole = random_embeddings(200, 5)
    for length in (0, 1, 63, 64, 65, 130):
        assert torch.equal(random_embeddings(length, 5), whole[:length])
    assert abs(whole.std() - 1) < 0.1


class Decoder(nn.Module):
    """Layers that read a source."""

    def __init__(self, slots, cross=True):
        super().__init__()
        causal = Pattern.CAUSAL_SELF
        self.layers = nn.ModuleList(
            CrossAttentionLayer(slots.layer(i, of=2, max_length=16), causal, Pattern.CAUSAL_CROSS,
                                WIDTH, HEADS)
            for i in range(2)
        )  # fmt: skip


class Halving(nn.Module):
    """Every second token goes on to the next layer."""

    def __init__(self, slots):
        super().__init__()
        self.layers = nn.ModuleList(
            SelfAttentionLayer(slots.layer(i, of=2, max_length=16), Pattern.CAUSAL_SELF, WIDTH,
                               HEADS)
            for i in range(2)
        )  # fmt: skip

    def forward(self, x):
        return self.layers[1](self.layers[0](x)[:, ::2])


def test_layers_that_read_a_source_have_no_random_embeddings():
    slots = Slots(Pattern.CAUSAL_SELF, DeconRndQK, SoftmaxAttention)
    with pytest.raises(NotImplementedError, match="not CrossAttentionLayer"):
        DeconRndQK.wire(Decoder(slots), slots.candidates, Text())


@pytest.mark.parametrize(
    ("cls", "says"), [(DeconStaticQK, "one length and width"), (DeconRndQK, "nothing between")]
)
def test_layers_of_several_lengths_are_refused(cls, says):
    slots = Slots(Pattern.CAUSAL_SELF, cls, SoftmaxAttention)
    model = Halving(slots)
    cls.wire(model, slots.candidates, Text())
    with pytest.raises(NotImplementedError, match=says):
        model(torch.randn(2, 8, WIDTH))


def test_a_text_ends():
    model, _ = stack(DeconFixedSeqQK)
    assert model(tokens(2, 12)).shape == (2, 12, 7)
    with pytest.raises(NotImplementedError, match="has 12 tokens, not 13"):
        model(tokens(2, 13))


def test_a_text_is_read_by_models_of_ids():
    slots = Slots(Pattern.CAUSAL_SELF, DeconFixedSeqQK, SoftmaxAttention)
    task = Text()
    task.ids = torch.randn(2, 8, WIDTH)
    with pytest.raises(NotImplementedError, match="called with ids"):
        DeconFixedSeqQK.wire(Halving(slots), slots.candidates, task)


def test_wiring_leaves_the_model_as_it_was():
    before, _ = stack(DeconFixedSeqQK, wired=False)
    state = torch.random.get_rng_state()
    DeconFixedSeqQK.wire(before.train(), stack_slots(before), Text())
    assert before.training
    assert torch.equal(torch.random.get_rng_state(), state)


def stack_slots(model):
    return [layer.attention.core for layer in model.layers]


@pytest.mark.parametrize("cls", CLASSES)
def test_a_backbone_without_projections_is_refused(cls):
    slots = Slots(Pattern.CAUSAL_SELF, cls, SoftmaxAttention)
    slot = slots.layer(0, of=1, max_length=16)(Pattern.CAUSAL_SELF, heads=2, head_dim=4)
    with pytest.raises(NotImplementedError, match="projections query and key"):
        cls.wire(nn.ModuleList([slot]), slots.candidates, Text())


@pytest.mark.parametrize("name", NAMES)
def test_experiments_wire_and_keys_cover_it(name):
    entry = ATTENTIONS.resolve(name)
    units = reached(entry.target, TRAINING_METHODS).units
    assert any(unit == "wire" for *_, unit in units)
    task = TASKS.load(TASKS.resolve("state-tracking"))(Pattern.CAUSAL_SELF, Scale.TINY, None)
    built = WiredExperiment(
        task, Pattern.CAUSAL_SELF, ATTENTIONS.load(entry), SoftmaxAttention, {}, 0, "cpu"
    )
    built.build()
    batch = task.training_batch(torch.Generator().manual_seed(0))
    wired = task.loss(built.model, batch)
    for part in built.model.modules():
        part._forward_pre_hooks.clear()
        part._forward_hooks.clear()
    assert wired != task.loss(built.model, batch)
