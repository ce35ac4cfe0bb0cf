"""Point Transformer vector attention: its formula by loops, means, neighbours, decoding."""

import copy

import pytest
import torch
from torch.nn import functional as F

import attentions.pt_vector as pt_vector
import cab
from cab import AttentionContext
from cab.errors import OptionError
from tests.attentions.cases import draw, error, gradients, module, qkv

PATTERNS = ["NS", "CS", "NC", "CC"]


def times(length, seed):
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.rand(2, length, generator=generator, dtype=torch.float64)).cumsum(-1)


def stamped(pattern, length_q, length_k):
    keys = times(length_k, 1)
    queries = times(length_q, 2) if pattern.endswith("C") else keys
    return AttentionContext(query_times=queries, key_times=keys)


def by_loops(attention, q, k, v, context, causal):
    """The formula, one query at a time, in the paper's order of operations."""
    out, n = torch.empty_like(q), attention.neighbours
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for i in range(q.shape[2]):
                offset = context.key_times[b] - context.query_times[b, i]
                near = offset.abs().argsort(stable=True)[:n]
                if causal:
                    near = torch.arange(max(0, i - n + 1), i + 1)
                place = (offset[near] / n)[:, None]
                hidden = F.gelu(place @ attention.place.weight.T + attention.place.bias)
                p = hidden @ attention.code.weight[h] + attention.code.bias[h]
                x = k[b, h, near] - q[b, h, i] + p
                x = F.gelu(x) @ attention.mix.weight[h] + attention.mix.bias[h]
                x = F.gelu(x) @ attention.weigh.weight[h] + attention.weigh.bias[h]
                w = x.softmax(0)
                wide = torch.stack([w[:, c % w.shape[1]] for c in range(v.shape[-1])], dim=-1)
                out[b, h, i] = ((v[b, h, near] + p) * wide).sum(0)
    return out


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("share", [2, 8])
def test_equals_the_formula_by_loops(pattern, share):
    q, k, v = qkv(7 if pattern.endswith("C") else 11, 11)
    attention = module("pt-vector", pattern, neighbours=4, share=share)
    context = stamped(pattern, 7, 11)
    want = by_loops(attention, q, k, v, context, pattern == "CS")
    assert error(attention(q, k, v, context), want) <= 1e-13
    assert error(attention.reference(q, k, v, context), want) <= 1e-13


@pytest.mark.parametrize("pattern", PATTERNS)
def test_equals_the_reference_with_gradients_under_masks(pattern, monkeypatch):
    monkeypatch.setattr(pt_vector, "_BLOCK", 8)
    q, k, v = qkv(23 if pattern.endswith("C") else 19, 19)
    mask = torch.rand(2, 19, generator=torch.Generator().manual_seed(1)) > 0.5
    attention = module("pt-vector", pattern, neighbours=5)
    (grad,) = draw(q.shape, seed=1)
    context = AttentionContext(key_mask=mask)
    leaves = [*attention.parameters()]
    results = []
    for form in (attention, attention.reference):
        out, found = gradients(lambda *x, f=form: f(*x, context), (q, k, v), grad)
        of_parameters = torch.autograd.grad((form(q, k, v, context) * grad).sum(), leaves)
        results.append([out, *found, *of_parameters])
    for x, y in zip(*results, strict=True):
        assert error(x, y) <= 1e-12


def test_equal_weights_are_the_mean_of_the_nearest():
    q, k, v = qkv(19, 19)
    attention = module("pt-vector", "NS", neighbours=3)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.zero_()
    inner = torch.stack([v[:, :, i - 1 : i + 2].mean(-2) for i in range(1, 18)], dim=2)
    assert error(attention(q, k, v)[:, :, 1:-1], inner) <= 1e-14


def test_one_neighbour_is_the_token_itself_and_its_code():
    q, k, v = qkv()
    attention = module("pt-vector", "CS", neighbours=1)
    code = attention.code(F.gelu(attention.place.bias).expand(1, 1, 1, 1, -1))[:, :, :, 0]
    assert error(attention(q, k, v), v + code) <= 1e-13


@pytest.mark.parametrize("pattern", ["CS", "CC"])
@pytest.mark.parametrize("stamps", [True, False])
def test_decoding_keeps_the_last_valid_tokens(pattern, stamps):
    q, k, v = qkv()
    attention = module("pt-vector", pattern, neighbours=4)
    context = stamped(pattern, 19, 19) if stamps else AttentionContext()
    context.key_mask = torch.ones(2, 19, dtype=torch.bool)
    context.key_mask[0, [0, 3, 4]] = False
    want = attention(q, k, v, context)
    prompt = 19 if pattern == "CC" else 6
    known = AttentionContext(
        key_times=context.key_times[:, :prompt] if stamps else None,
        key_mask=context.key_mask[:, :prompt],
    )
    state = attention.prefill(k[:, :, :prompt], v[:, :, :prompt], known)
    for t in range(0 if pattern == "CC" else prompt, 19):
        own = slice(t, t + 1)
        new = (None, None) if pattern == "CC" else (k[:, :, own], v[:, :, own])
        token = AttentionContext(query_times=context.query_times[:, own]) if stamps else None
        row, state = attention.step(q[:, :, own], *new, state, token)
        assert error(row, want[:, :, own]) <= 1e-13
    kept = sum(state.tensors[n].numel() for n in ("k", "v", "times")) // 2
    assert kept == attention.state_size(19)


def test_values_of_another_width_have_a_code_of_their_own():
    q, k, v = qkv(20, 20)
    spec = cab.AttentionSpec(cab.Pattern.NONCAUSAL_SELF, 3, 5, value_dim=3)
    attention = pt_vector.PointVectorAttention(spec, share=2).double()
    v = v[..., :3]
    assert error(attention(q, k, v), attention.reference(q, k, v)) <= 1e-13


def test_copies():
    q, k, v = qkv()
    attention, other = module("pt-vector", "NS"), module("pt-vector", "NS")
    other.load_state_dict(attention.state_dict())
    assert torch.equal(copy.deepcopy(attention)(q, k, v), other(q, k, v))


def test_options_that_make_no_sense_are_refused():
    for options in ({"neighbours": 0}, {"share": 0}, {"unit": -1.0}):
        with pytest.raises(OptionError):
            cab.attention("pt-vector", pattern="NS", heads=1, head_dim=4, **options)
