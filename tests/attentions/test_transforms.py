"""What people do to a module besides calling it: copy, save and load, compile a model around it."""

import copy

import pytest
import torch
from torch import nn

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
