"""A hole in the mask: the key is gone, whatever it held, and the others keep their positions."""

from dataclasses import replace

import pytest
import torch

from cab import Attention, AttentionContext, AttentionSpec, Pattern
from tests.attentions.cases import draw, error, gradients
from tests.attentions.registered import build, call, claims, decodes, filled, with_masks

LENGTH = 37
HOLES = {
    "leading": [0, 1, 2],
    "one leading": [0],
    "interior": [5, 6, 13, 20, 21, 22, 30],
    "trailing": [33, 34, 35, 36],
    "every other": list(range(0, LENGTH, 2)),
}


def specified(cls, pattern):
    return cls.reference is not Attention.reference


def holes(name, length=LENGTH):
    mask = torch.ones(2, length, dtype=torch.bool)
    mask[:, [i for i in HOLES[name] if i < length]] = False
    return mask


def differing():
    """One row with holes, one without any valid key."""
    mask = holes("interior")
    mask[1] = False
    return mask


@pytest.mark.parametrize("content", [torch.nan, torch.inf])
@pytest.mark.parametrize(("cls", "pattern"), claims())
def test_what_masked_tokens_hold_has_no_effect(cls, pattern, content):
    attention = build(cls, pattern)
    inputs = with_masks(call(pattern), pattern, differing(), holes("one leading", 23))
    valid = inputs.context.query_mask[:, None, :, None]
    (out, found), (other, others) = (
        with_gradients(attention, one) for one in (inputs, filled(inputs, content))
    )
    assert out.isfinite().all()
    assert other.isfinite().all()
    assert torch.equal(out.masked_fill(~valid, 0.0), other.masked_fill(~valid, 0.0))
    assert out[1].abs().max() == 0
    hidden = ~inputs.context.key_mask
    for clean, dirty in zip(found, others, strict=True):
        assert torch.equal(clean, dirty)
    for x in others[1:3]:
        assert x.masked_select(hidden[:, None, :, None]).abs().max() == 0
    assert others[3].masked_select(~inputs.context.query_mask[..., None]).abs().max() == 0


def with_gradients(attention, inputs):
    """Output, and the gradients of q, k, v and the layer input for a loss over all rows."""
    own = inputs.context.query_input
    leaves = [x.detach().clone().requires_grad_() for x in (*inputs.tensors(), own)]
    same = inputs.context.key_input is own
    context = replace(
        inputs.context,
        query_input=leaves[3],
        key_input=leaves[3] if same else inputs.context.key_input,
    )
    out = attention(*leaves[:3], context)
    loss = out.square().sum() + sum(0 * x[:0].sum() for x in leaves)
    return out.detach(), torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize(("cls", "pattern"), claims(specified))
def test_the_reference_does_not_read_them_either(cls, pattern):
    attention = build(cls, pattern)
    inputs = with_masks(call(pattern), pattern, differing())
    want = inputs.run(attention.reference)
    assert torch.equal(filled(inputs, torch.nan).run(attention.reference), want)
    assert error(inputs.run(attention), want) <= 1e-9


@pytest.mark.parametrize("name", HOLES)
@pytest.mark.parametrize(("cls", "pattern"), claims())
def test_masking_is_removing_with_positions_kept(cls, pattern, name):
    attention = build(cls, pattern)
    mask = holes(name)
    queries = holes("one leading", 23)
    inputs = with_masks(call(pattern), pattern, mask, queries)
    kept = mask[0].nonzero()[:, 0]
    rows = queries[0].nonzero()[:, 0] if pattern.cross else kept
    context = AttentionContext(
        query_input=inputs.context.query_input[:, rows],
        key_input=inputs.context.key_input[:, kept],
        query_positions=rows,
        key_positions=kept,
    )
    alone = (inputs.q[:, :, rows], inputs.k[:, :, kept], inputs.v[:, :, kept], context)
    got = inputs.run(attention)[:, :, rows]
    assert error(got, attention(*alone)) <= 1e-10
    if cls.reference is not Attention.reference:
        assert error(got, attention.reference(*alone)) <= 1e-9


@pytest.mark.parametrize("name", ["interior", "every other"])
@pytest.mark.parametrize(("cls", "pattern"), claims(specified))
def test_gradients_under_holes_are_those_of_the_reference(cls, pattern, name):
    attention = build(cls, pattern)
    inputs = with_masks(call(pattern), pattern, holes(name))
    (grad,) = draw(inputs.q.shape, seed=5)

    def run(function):
        return lambda *x: function(*x, inputs.context) + sum(0 * y[:0].sum() for y in x)

    out, found = gradients(run(attention), inputs.tensors(), grad)
    want_out, want = gradients(run(attention.reference), inputs.tensors(), grad)
    assert error(out, want_out) <= 1e-9
    for x, y in zip(found, want, strict=True):
        assert error(x, y) <= 1e-9


@pytest.mark.parametrize("name", HOLES)
@pytest.mark.parametrize(("cls", "pattern"), claims(decodes))
def test_decoding_after_a_prompt_with_holes(cls, pattern, name):
    attention = build(cls, pattern)
    prompt = LENGTH if pattern.cross else 24
    mask = torch.ones(2, LENGTH, dtype=torch.bool)
    # "trailing" ones are the last of the prompt; the other row has none.
    mask[0, :prompt] = holes(name)[0, -prompt:] if name == "trailing" else holes(name)[0, :prompt]
    inputs = call(pattern)
    inputs = filled(replace(inputs, context=replace(inputs.context, key_mask=mask)), torch.nan)
    want, c = inputs.run(attention), inputs.context
    state = attention.prefill(
        inputs.k[:, :, :prompt],
        inputs.v[:, :, :prompt],
        AttentionContext(key_mask=mask[:, :prompt], key_input=c.key_input[:, :prompt]),
    )
    for t in range(0 if pattern.cross else prompt, inputs.q.shape[-2]):
        own, place = slice(t, t + 1), torch.tensor([t])
        token = AttentionContext(query_input=c.query_input[:, own], query_positions=place)
        k_t, v_t = (None, None) if pattern.cross else (inputs.k[:, :, own], inputs.v[:, :, own])
        if not pattern.cross:
            token = replace(token, key_input=token.query_input, key_positions=place)
        given = {"context": token} if cls.step_takes_context() else {}
        row, state = attention.step(inputs.q[:, :, own], k_t, v_t, state, **given)
        assert error(row, want[:, :, own]) <= 1e-11


class Plain(Attention):
    """Causal softmax as anyone would write it; tells what it was given."""

    def forward(self, q, k, v, context=None):
        self.given = q, k, v
        scores = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(
            torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).triu(1), -torch.inf
        )
        if context is not None and context.key_mask is not None:
            scores = scores.masked_fill(~context.key_mask[:, None, None, :], -torch.inf)
        return scores.softmax(-1).nan_to_num(0.0) @ v


class Mixin:
    forward = Plain.__dict__["forward"].__wrapped__


class Mixed(Mixin, Attention):
    pass


class Inheriting(Plain):
    pass


@pytest.mark.parametrize("cls", [Plain, Inheriting, Mixed])
def test_a_plain_class_from_outside_is_given_zeros(cls):
    inputs = call(Pattern.CAUSAL_SELF)
    attention = cls(AttentionSpec(Pattern.CAUSAL_SELF, 2, 8))
    masked = filled(with_masks(inputs, Pattern.CAUSAL_SELF, holes("interior")), torch.nan)
    context = masked.context
    for out in (
        attention(*masked.tensors(), context),
        attention(*masked.tensors(), context=context),
        attention(q=masked.q, k=masked.k, v=masked.v, context=context),
        attention.forward(*masked.tensors(), context),
    ):
        assert out.isfinite().all()
    assert "forward" not in Inheriting.__dict__
    assert context.key_input.isnan().any()  # the caller's own context stays as it is


@pytest.mark.parametrize("context", [None, AttentionContext()])
def test_without_a_mask_nothing_is_copied(context):
    inputs = call(Pattern.CAUSAL_SELF)
    attention = Plain(AttentionSpec(Pattern.CAUSAL_SELF, 2, 8))
    attention(*inputs.tensors(), context)
    assert all(a is b for a, b in zip(attention.given, inputs.tensors(), strict=True))
