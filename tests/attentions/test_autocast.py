"""Automatic mixed precision with float32 inputs: finite, and near what float32 gives."""

import pytest
import torch

from tests.attentions.registered import build, call, claims, decodes


@pytest.mark.parametrize(("cls", "pattern"), claims())
def test_autocast_changes_rounding_only(cls, pattern):
    attention = build(cls, pattern, torch.float32)
    inputs = call(pattern).to(torch.float32)
    want = inputs.run(attention)
    leaves = [x.requires_grad_() for x in inputs.tensors()]
    with torch.autocast("cpu", torch.bfloat16):
        got = attention(*leaves, inputs.context)
    assert got.isfinite().all()
    # Eight bits of a softmax's operands; what is decided by comparisons must not tip over.
    assert (got.float() - want).abs().max() <= 0.02 * max(1.0, want.abs().max().item())
    if got.requires_grad:
        loss = got.float().square().sum()
        found = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
        assert all(x.isfinite().all() for x in found)


@pytest.mark.parametrize(("cls", "pattern"), claims(decodes))
def test_decoding_under_autocast(cls, pattern):
    attention = build(cls, pattern, torch.float32)
    inputs = call(pattern).to(torch.float32)
    want, prompt = inputs.run(attention), 37 if pattern.cross else 30
    c = inputs.context
    with torch.autocast("cpu", torch.bfloat16):
        past = type(c)(key_input=c.key_input[:, :prompt])
        state = attention.prefill(inputs.k[:, :, :prompt], inputs.v[:, :, :prompt], past)
        for t in range(0 if pattern.cross else prompt, inputs.q.shape[-2]):
            own = slice(t, t + 1)
            new = () if pattern.cross else (inputs.k[:, :, own], inputs.v[:, :, own])
            layer = c.query_input[:, own]
            key_input = None if pattern.cross else layer
            where = torch.tensor([t])
            token = type(c)(query_input=layer, key_input=key_input, query_positions=where)
            given = {"context": token} if cls.step_takes_context() else {}
            row, state = attention.step(inputs.q[:, :, own], *(new or (None, None)), state, **given)
            assert (row.float() - want[:, :, own]).abs().max() <= 0.03
