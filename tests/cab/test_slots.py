"""Slots know their layer, and their weights hang on nothing but the seed and their place."""

import pytest
import torch

from cab import Pattern, Slots
from cab.registries import ATTENTIONS


def load(name):
    return ATTENTIONS.load(ATTENTIONS.resolve(name))


def slots(candidate="softmax", seed=0, pattern=Pattern.CAUSAL_SELF):
    return Slots(pattern, load(candidate), load("softmax"), {}, seed)


def test_a_layer_tells_its_modules_where_they_are():
    layer = slots().layer(1, of=3, max_length=77)
    spec = layer(Pattern.NONCAUSAL_CROSS, heads=2, head_dim=8, embed_dim=16, value_dim=4).spec
    assert (spec.layer_index, spec.layers, spec.max_length) == (1, 3, 77)
    assert (spec.heads, spec.head_dim, spec.embed_dim, spec.value_dim) == (2, 8, 16, 4)


@pytest.mark.parametrize("index", [-1, 3])
def test_a_layer_that_the_stack_does_not_have_is_refused(index):
    with pytest.raises(ValueError, match=f"layer {index} of 3"):
        slots().layer(index, of=3, max_length=8)


def test_the_candidate_is_in_the_slots_of_its_pattern_alone():
    some = slots("linear-elu")
    layer = some.layer(0, of=1, max_length=8)
    own = layer(Pattern.CAUSAL_SELF, heads=2, head_dim=4)
    other = layer(Pattern.CAUSAL_CROSS, heads=2, head_dim=4)
    assert isinstance(own, load("linear-elu"))
    assert isinstance(other, load("softmax"))
    assert some.candidates == [own]


def test_weights_of_a_slot_hang_on_seed_and_place_and_leave_the_backbone_alone():
    def weights(seed, before=0):
        layer = slots("lla", seed).layer(0, of=2, max_length=8)
        torch.manual_seed(before)
        modules = [layer(Pattern.CAUSAL_SELF, heads=2, head_dim=4, embed_dim=8) for _ in range(2)]
        drawn = torch.randn(3)
        numbers = [torch.cat([p.flatten() for p in m.parameters()]) for m in modules]
        return numbers, drawn

    (one, two), drawn = weights(0)
    (again, _), later = weights(0, before=1)
    assert one.numel()
    assert torch.equal(one, again)
    assert torch.equal(drawn, torch.randn(3, generator=torch.Generator().manual_seed(0)))
    assert not torch.equal(drawn, later)
    (other, _), _ = weights(1)
    assert one.std() == 0 or not torch.equal(one, other)
    assert one.std() == 0 or not torch.equal(one, two)
