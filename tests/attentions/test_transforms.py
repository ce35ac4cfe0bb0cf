"""What people do to a module besides calling it: copy, save and load, compile a model around it."""

import copy

import pytest
import torch
from torch import nn

from cab import AttentionContext
from tests.attentions.registered import build, call, claims


def another(cls, pattern):
    """A module whose parameters and buffers are others."""
    module = build(cls, pattern)
    with torch.no_grad():
        for x in (*module.parameters(), *module.buffers()):
            if x.is_floating_point():
                x.add_(0.01)
    return module


@pytest.mark.parametrize(("cls", "pattern"), claims())
def test_a_copy_is_equal_and_apart(cls, pattern):
    attention, inputs = build(cls, pattern), call(pattern)
    want = inputs.run(attention)
    twin = copy.deepcopy(attention)
    assert torch.equal(inputs.run(twin), want)
    with torch.no_grad():
        for x in twin.parameters():
            x.fill_(float("nan"))
    assert torch.equal(inputs.run(attention), want)


@pytest.mark.parametrize(("cls", "pattern"), claims())
def test_what_is_saved_is_what_is_loaded(cls, pattern, tmp_path):
    attention, inputs = another(cls, pattern), call(pattern)
    torch.save(attention.state_dict(), tmp_path / "module.pt")
    fresh = build(cls, pattern)
    fresh.load_state_dict(torch.load(tmp_path / "module.pt", weights_only=True), strict=True)
    assert torch.equal(inputs.run(fresh), inputs.run(attention))


@pytest.mark.parametrize(("cls", "pattern"), claims())
def test_a_mapped_call_is_that_of_each(cls, pattern):
    attention, inputs = build(cls, pattern), call(pattern)
    q, k, v = inputs.tensors()[:3]
    queries = torch.stack([q, 0.5 * q, -q], dim=1).requires_grad_()
    c = inputs.context
    c.key_mask = torch.arange(k.shape[-2]).expand(k.shape[0], -1) > 0
    if not attention.pattern.cross:
        c.query_mask = c.key_mask
    want = torch.stack([attention(x, k, v, c) for x in queries.unbind(1)])
    got = torch.func.vmap(lambda x: attention(x, k, v, c), in_dims=1)(queries)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-10)
    assert got.requires_grad == want.requires_grad
    if want.requires_grad:  # what reads values alone has no gradient here
        given = {"allow_unused": True, "materialize_grads": True}
        (found,) = torch.autograd.grad(got.tanh().sum(), queries, **given)
        (wanted,) = torch.autograd.grad(want.tanh().sum(), queries, **given)
        torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(("cls", "pattern"), claims())
def test_arguments_may_be_named(cls, pattern):
    attention, inputs = build(cls, pattern), call(pattern)
    named = attention(q=inputs.q, k=inputs.k, v=inputs.v, context=inputs.context)
    assert torch.equal(named, inputs.run(attention))


@pytest.mark.parametrize("name", ["local", "softmax", "lla"])
def test_what_the_context_holds_may_be_mapped(name):
    attention = next(build(*p.values) for p in claims() if p.id == f"{name}-CS")
    inputs = call(attention.pattern)
    q, k, v = inputs.tensors()[:3]
    masks = torch.arange(3 * k.shape[0] * k.shape[-2]).view(3, k.shape[0], -1) % 5 > 0
    places = torch.arange(k.shape[-2]) + torch.arange(3)[:, None]

    def masked(mask, places):
        return attention(q, k, v, AttentionContext(key_mask=mask, key_positions=places))

    got = torch.func.vmap(masked)(masks, places)
    want = torch.stack([masked(*given) for given in zip(masks, places, strict=True)])
    torch.testing.assert_close(got, want)


class Around(nn.Module):
    """A layer with an attention inside, as a user's model has one."""

    def __init__(self, attention):
        super().__init__()
        self.attention = attention
        self.norm = nn.LayerNorm(8).double()

    def forward(self, q, k, v, context):
        out = self.attention(self.norm(q), k, v, context)
        return (q + out).tanh()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # those of the compiler, about what it traces itself
@pytest.mark.parametrize(("cls", "pattern"), claims())
def test_a_model_around_it_compiles(cls, pattern):
    torch._dynamo.reset()
    model, inputs = Around(build(cls, pattern)), call(pattern)
    leaves = [x.requires_grad_() for x in inputs.tensors()]
    want = model(*leaves, inputs.context)
    wanted = torch.autograd.grad(want.sum(), leaves, allow_unused=True, materialize_grads=True)
    compiled = torch.compile(model, backend="aot_eager")
    got = compiled(*leaves, inputs.context)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-10)
    found = torch.autograd.grad(got.sum(), leaves, allow_unused=True, materialize_grads=True)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)
