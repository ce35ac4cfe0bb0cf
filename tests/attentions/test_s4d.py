"""S4D: the convolution, its recurrence and its kernels."""

import math

import pytest
import torch
from torch.nn import functional as F

import attentions.shared.long_convolution as long_convolution
import cab
from benchmarks.attentions.plain.s4d import attend
from cab import AttentionContext
from cab.errors import OptionError
from cab.info import Kind
from cab.registries import ATTENTIONS
from cab.task_contract import Recipe
from runners.training import make_optimiser
from tests.attentions.cases import draw, error, gradients, module, qkv

FORMS = [("CS", {}), ("NS", {}), ("NS", {"bidirectional": False}), ("NS", {"state": 64})]


def values(length, seed=0):
    (v,) = draw((2, 3, length, 5), seed=seed)
    return v


def discretised(s4d):
    """e^(Δλ) and C', each channel's."""
    eigenvalues = torch.complex(-s4d.log_decay.exp(), s4d.frequency)
    rates = s4d.log_step.exp()[:, None] * eigenvalues
    c = torch.view_as_complex(s4d.output) * (rates.exp() - 1) / eigenvalues
    return rates.exp(), c, eigenvalues


def by_recurrence(s4d, v):
    """The recurrence over the past, and with a second output map that over the future."""
    decay, c, _ = discretised(s4d)
    u = v.transpose(1, 2).flatten(2)
    y = s4d.skip * u
    state = torch.zeros(len(u), *decay.shape, dtype=decay.dtype)
    for t in range(u.shape[1]):
        state = decay * state + u[:, t, :, None]
        y[:, t] += 2 * (c[0] * state).sum(-1).real
    if len(c) == 2:
        state = torch.zeros_like(state)
        for t in reversed(range(u.shape[1])):
            y[:, t] += 2 * (c[1] * state).sum(-1).real
            state = decay * state + u[:, t, :, None]
    return F.gelu(y).unflatten(2, v.shape[1::2]).transpose(1, 2)


@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 100])
@pytest.mark.parametrize(("pattern", "options"), FORMS)
def test_the_convolution_is_the_recurrence(pattern, options, length):
    s4d, v = module("s4d", pattern, **options), values(length)
    with torch.no_grad():
        want = by_recurrence(s4d, v)
        assert error(s4d(v, v, v), want) <= 1e-12
        assert error(s4d.reference(v, v, v), want) <= 1e-12
        if pattern == "CS":
            assert error(s4d(v[:, :, -1:], v, v), want[:, :, -1:]) <= 1e-12


@pytest.mark.parametrize(("pattern", "options"), FORMS)
def test_the_straightforward_form(pattern, options):
    s4d, v = module("s4d", pattern, **options), values(90)
    assert error(s4d(v, v, v), attend(s4d, v, v, v)) <= 1e-12


def test_float32_over_thousands_of_tokens():
    s4d = cab.attention("s4d", pattern="NS", heads=1, head_dim=4, max_length=5000)
    (v,) = draw((1, 1, 5000, 4))
    with torch.no_grad():
        low = s4d(*[v.float()] * 3)
        assert error(low, s4d.double()(v, v, v)) <= 1e-5


@pytest.mark.parametrize("pattern", ["CS", "NS"])
def test_a_constant_input_settles_where_the_continuous_system_does(pattern):
    """x' = λ x + 1 settles at -1/λ, whatever the step."""
    s4d = module("s4d", pattern)
    with torch.no_grad():
        s4d.log_step.fill_(math.log(0.1))
        s4d.skip.zero_()
        ones = torch.ones(1, 3, 2001, 5).double()
        c, eigenvalues = torch.view_as_complex(s4d.output), discretised(s4d)[2]
        steady = F.gelu(-2 * (c / eigenvalues).sum((0, -1)).real)
        got = s4d(ones, ones, ones)[0, :, 1000].flatten()
    assert error(got, steady) <= 1e-12


def test_queries_and_keys_are_not_used():
    q, k, v = qkv()
    s4d = module("s4d", "NS")
    assert torch.equal(s4d(q, k, v), s4d(k, q, v))
    assert s4d.info.kind is Kind.MIXER


def test_what_an_impulse_reaches():
    impulse = torch.zeros(1, 3, 50, 5).double()
    impulse[:, :, 20] = 1.0
    for pattern, options, sides in (("CS", {}, 1), ("NS", {}, 2), ("NS", FORMS[2][1], 1)):
        s4d = module("s4d", pattern, **options)
        assert len(s4d.output) == sides
        reached = s4d(impulse, impulse, impulse) != 0
        assert reached[:, :, 20:].all()
        assert reached[:, :, :20].any() == (sides == 2)


@pytest.mark.parametrize("heads", [1, 2, 3])
@pytest.mark.parametrize(("pattern", "options"), FORMS)
def test_gradients_of_the_hand_written_backward(monkeypatch, pattern, options, heads):
    monkeypatch.setattr(long_convolution, "_BLOCK", heads * 2 * 70 * 5)
    assert len(long_convolution._blocks(values(70))) == -(-3 // heads)
    s4d, g = module("s4d", pattern, **options), values(70, seed=1)
    mask = torch.ones(2, 70, dtype=torch.bool)
    mask[1, 40:] = False
    context = AttentionContext(key_mask=mask)

    def run(function):
        # The layout of a value projection, which is not contiguous here.
        v = values(70).transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
        out = function(v, v, v, context)
        return out, torch.autograd.grad(out, [v, *s4d.parameters()], g)

    (out, got), (reference, want) = run(s4d), run(s4d.reference)
    assert error(out, reference) <= 1e-12
    assert len(got) == 6
    assert all(error(a, b) <= 1e-10 for a, b in zip(got, want, strict=True))


def test_gradcheck(monkeypatch):
    monkeypatch.setattr(long_convolution, "CHUNK", 2)
    s4d = cab.attention("s4d", pattern="NS", heads=1, head_dim=2, state=2).double()
    (v,) = draw((1, 1, 5, 2))

    def run(v, *parameters):
        names = [name for name, _ in s4d.named_parameters()]
        return torch.func.functional_call(s4d, dict(zip(names, parameters, strict=True)), (v,) * 3)

    inputs = [x.detach().clone().requires_grad_() for x in (v, *s4d.parameters())]
    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize("pattern", ["CS", "NS"])
def test_masked_tokens_are_zero_inputs(pattern):
    (v,) = draw((4, 3, 41, 5))
    s4d = module("s4d", pattern)
    mask = torch.ones(4, 41, dtype=torch.bool)
    mask[0, 30:], mask[1, 5:12], mask[2] = False, False, False
    context = AttentionContext(key_mask=mask)
    hidden = ~mask[:, None, :, None]
    noisy = v.masked_fill(hidden, torch.nan)
    out, grads = gradients(lambda x: s4d(x, x, x, context), [noisy], torch.ones_like(v))
    assert grads[0].isfinite().all()
    assert torch.equal(out[2], torch.zeros_like(out[2]))
    zeroed = v.masked_fill(hidden, 0.0)
    assert torch.equal(out, s4d(zeroed, zeroed, zeroed))
    short = v[:1, :, :30]
    assert error(out[:1, :, :30], s4d(short, short, short)) <= 1e-12


def test_steps_after_a_prompt_that_fills_no_chunk():
    s4d, v = module("s4d", "CS"), values(75)
    want = s4d(v, v, v)
    for prompt in (0, 1, 32, 50):
        state = s4d.prefill(v[:, :, :prompt], v[:, :, :prompt])
        numbers = torch.view_as_real(state.tensors["state"][0]).numel()
        assert numbers == s4d.state_size(prompt) == 3 * 5 * 16
        for t in range(prompt, 75):
            token = v[:, :, t : t + 1]
            out, state = s4d.step(token, token, token, state)
            assert error(out, want[:, :, t : t + 1]) <= 1e-12
        assert state.length == 75


@pytest.mark.parametrize("pattern", ["CS", "NS"])
def test_low_precision_and_autocast(pattern):
    s4d, v = module("s4d", pattern).float(), values(70).float()
    want = s4d(v, v, v)
    low = v.bfloat16()
    out = s4d(low, low, low)
    assert out.dtype == torch.bfloat16
    assert error(out, want.double()) <= 1e-2
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(s4d(v, v, v), want)


def test_initial_parameters():
    torch.manual_seed(0)
    s4d = cab.attention("s4d", pattern="NS", heads=4, head_dim=64, state=4)
    assert s4d.log_decay.exp().tolist() == [0.5, 0.5]
    inverse = [4 / math.pi * (4 / (2 * n + 1) - 1) for n in range(2)]
    assert s4d.frequency.tolist() == pytest.approx(inverse)
    steps = s4d.log_step.exp()
    assert 1e-3 <= steps.min() < 2e-3
    assert 5e-2 < steps.max() <= 1e-1
    # Outputs of the two directions settle with variance 1 each for a constant input.
    settled = -2 * (torch.view_as_complex(s4d.output) / discretised(s4d)[2]).sum(-1).real
    assert settled.var(-1).tolist() == pytest.approx([1.0, 1.0], abs=0.3)


def test_the_optimiser_leaves_the_dynamics_undecayed():
    s4d = cab.attention("s4d", pattern="CS", heads=2, head_dim=4)
    assert [g["max_lr"] for g in s4d.parameter_groups()] == [1e-3]
    recipe = Recipe(steps=1, batch_size=1, learning_rate=0.1, weight_decay=0.3)
    optimiser = make_optimiser(s4d, [s4d], recipe)
    decays = {id(p): g["weight_decay"] for g in optimiser.param_groups for p in g["params"]}
    assert len(decays) == 5
    for name, parameter in s4d.named_parameters():
        dynamics = name in ("log_step", "log_decay", "frequency")
        assert decays[id(parameter)] == (0.0 if dynamics else 0.3)


def test_both_directions_fit_the_budget_of_a_small_layer():
    s4d = cab.attention("s4d", pattern="NS", heads=4, head_dim=16)
    assert sum(p.numel() for p in s4d.parameters()) <= 0.1 * 12 * 64**2


def test_the_state_is_made_of_conjugate_pairs():
    with pytest.raises(ValueError, match="even"):
        cab.attention("s4d", pattern="CS", heads=1, head_dim=4, state=7)
    with pytest.raises(OptionError, match="at least 2"):
        cab.attention("s4d", pattern="CS", heads=1, head_dim=4, state=0)
    assert ATTENTIONS.resolve("s4d").info.presets["cab"] == {"state": 16, "bidirectional": False}
