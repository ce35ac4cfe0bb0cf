"""S6: the recurrence, its limits, directions, segments, decoding."""

import copy

import pytest
import torch

import attentions.shared.selective_scan as engine
import cab
from attentions.s6_mix import S6Mixer
from cab import AttentionContext
from cab.errors import OptionError
from tests.attentions.cases import draw, error, gradients, module, qkv

PATTERNS = ["NS", "CS", "NC", "CC"]


def recurrence(attention, q, k, v, scan):
    """The formula of one direction, in loops over rows and heads."""
    out, last = torch.empty_like(v), []
    n = attention.state
    for b in range(v.shape[0]):
        for h in range(v.shape[1]):
            state = v.new_zeros(v.shape[-1], n)
            a = attention.log_rate[scan, h].exp()
            for t in range(v.shape[2]):
                x = v[b, h, t]
                z = x @ attention.step_down[scan, h] @ attention.step_up[scan, h]
                step = torch.log1p(torch.exp(z + attention.step_bias[scan, h]))[:, None]
                state = torch.exp(-step * a) * state + step * x[:, None] * k[b, h, t, :n]
                if not attention.pattern.cross:
                    out[b, h, t] = state @ q[b, h, t, :n] + attention.skip[scan, h] * x
            last.append(state)
    return out, torch.stack(last).unflatten(0, v.shape[:2])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_equals_the_recurrence(pattern):
    q, k, v = qkv(7 if pattern.endswith("C") else 11, 11)
    attention = module("s6-mix", pattern, state=3, norm=False)
    there = recurrence(attention, q, k, v, 0)
    want = there[0]
    if pattern != "CS":
        back = recurrence(attention, *(x.flip(2) for x in (q, k, v)), 1)
        want = there[0] + back[0].flip(2)
        if pattern.endswith("C"):
            want = q[..., :3] @ (there[1] + back[1]).mT
    assert error(attention(q, k, v), want) <= 1e-13
    assert error(attention.reference(q, k, v), want) <= 1e-13


@pytest.mark.parametrize("pattern", ["NS", "CS"])
def test_no_step_passes_the_values(pattern):
    q, k, v = qkv()
    attention = module("s6-mix", pattern, norm=False)
    with torch.no_grad():
        attention.step_up.zero_()
        attention.step_bias.fill_(-1e3)
        attention.skip.copy_(draw(attention.skip.shape)[0])
    assert error(attention(q, k, v), attention.skip.sum(0)[:, None] * v) <= 1e-14


@pytest.mark.parametrize("pattern", ["CS", "CC"])
def test_steps_of_one_without_decay_are_linear_attention(pattern):
    q, k, v = qkv()
    attention = module("s6-mix", pattern, norm=False)
    with torch.no_grad():
        attention.step_up.zero_()
        attention.step_bias.fill_(torch.tensor(1.0).expm1().log())
        attention.log_rate.fill_(-1e3)
    weights = q @ k.mT
    want = weights.tril() @ v + v if pattern == "CS" else 2 * weights @ v
    assert error(attention(q, k, v), want) <= 1e-6  # expm1 of float32


def test_the_first_steps_and_rates():
    spec = cab.AttentionSpec(cab.Pattern.NONCAUSAL_SELF, 3, 32)
    attention = S6Mixer(spec)
    step = torch.nn.functional.softplus(attention.step_bias)
    assert 0.99e-3 <= step.min() < 3e-3
    assert 3e-2 < step.max() <= 1.01e-1
    assert torch.allclose(attention.log_rate.exp(), torch.arange(1.0, 17.0).expand(2, 3, 32, 16))
    assert attention.step_down.shape == (2, 3, 32, 2)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("masked", [False, True])
def test_segments_change_nothing(pattern, masked, monkeypatch):
    monkeypatch.setattr(engine, "_NUMBERS", 1)
    q, k, v = qkv(9 if pattern.endswith("C") else 41, 41)
    attention, context = module("s6-mix", pattern), AttentionContext()
    if masked:
        context.key_mask = torch.rand(2, 41, generator=torch.Generator().manual_seed(1)) > 0.4
    (grad,) = draw(q.shape, seed=1)
    leaves, results = [*attention.parameters()], []
    for form in (attention, attention.reference):
        out, found = gradients(lambda *x, f=form: f(*x, context), (q, k, v), grad)
        of_parameters = torch.autograd.grad((form(q, k, v, context) * grad).sum(), leaves)
        results.append([out, *found, *of_parameters])
    for x, y in zip(*results, strict=True):
        assert error(x, y) <= 1e-12


@pytest.mark.parametrize("pattern", PATTERNS)
def test_outputs_are_normalised_over_the_heads_of_a_token(pattern):
    q, k, v = qkv()
    plain, normed = (module("s6-mix", pattern, norm=n) for n in (False, True))
    with torch.no_grad():
        normed.norm.norm.bias.fill_(2.0)
        for name, x in plain.named_parameters():
            normed.get_parameter(name).copy_(x)
    tokens = plain(q, k, v).transpose(1, 2).flatten(2)
    want = torch.nn.functional.layer_norm(tokens, (15,)) + 2
    assert error(normed(q, k, v).transpose(1, 2).flatten(2), want) <= 1e-13
    mask = torch.ones(2, 19, dtype=torch.bool)
    mask[0] = False
    got = normed(q, k, v, AttentionContext(key_mask=mask, query_mask=mask))
    assert got[0].abs().max() == 0
    if pattern == "CC":
        state = normed.prefill(k, v, AttentionContext(key_mask=mask))
        assert normed.step(q[:, :, :1], None, None, state)[0][0].abs().max() == 0


def test_four_directions_on_a_grid():
    q, k, v = qkv(12, 12)
    context = AttentionContext(query_grid=(3, 4), key_grid=(3, 4))
    four, two = (module("s6-mix", "NS", directions=n, norm=False) for n in ("4", "2"))
    turn = torch.arange(12).view(3, 4).T.flatten()
    want = torch.zeros_like(v)
    for pair in (0, 1):
        with torch.no_grad():
            for own, other in zip(two.parameters(), four.parameters(), strict=True):
                own.copy_(other[2 * pair : 2 * pair + 2])
        if pair == 0:
            want = want + two(q, k, v)
        else:
            want[:, :, turn] += two(*(x[:, :, turn] for x in (q, k, v)))
    assert error(four(q, k, v, context), want) <= 1e-13
    assert error(four(q, k, v, context), four.reference(q, k, v, context)) <= 1e-13
    assert error(four(q, k, v), want) > 1e-3


def test_decoding_keeps_one_state():
    q, k, v = qkv()
    attention = module("s6-mix", "CS")
    want = attention(q, k, v)
    for prompt in (0, 7):
        state = attention.prefill(k[:, :, :prompt], v[:, :, :prompt])
        for t in range(prompt, 19):
            row, state = attention.step(*(x[:, :, t : t + 1] for x in (q, k, v)), state)
            assert error(row, want[:, :, t : t + 1]) <= 1e-13
    assert state.tensors["state"].numel() == 2 * attention.state_size(19)


def test_copies_and_maps_over_a_dimension():
    q, k, v = qkv()
    attention, other = module("s6-mix", "NS"), module("s6-mix", "NS")
    other.load_state_dict(attention.state_dict())
    want = attention(q, k, v)
    assert torch.equal(copy.deepcopy(attention)(q, k, v), other(q, k, v))
    with torch.no_grad():
        mapped = torch.func.vmap(attention)(*(torch.stack([x, x]) for x in (q, k, v)))
    assert error(mapped[1], want) <= 1e-13


def test_rates_are_not_decayed_and_bad_options_are_refused():
    (group,) = module("s6-mix", "CS").parameter_groups()
    assert group["weight_decay"] == 0.0
    assert len(group["params"]) == 3
    for options in ({"state": 0}, {"directions": "3"}):
        with pytest.raises(OptionError):
            cab.attention("s6-mix", pattern="NS", heads=1, head_dim=4, **options)
