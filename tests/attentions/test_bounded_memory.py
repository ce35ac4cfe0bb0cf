"""ABC: the slots, the causal scan and its gradients."""

import math

import pytest
import torch

import attentions.shared.bounded_memory_scan as scan
import cab
from benchmarks.attentions.plain.bounded_memory import attend
from cab import AttentionContext
from tests.attentions.cases import draw, error, gradients, module, qkv

PATTERNS = ["NS", "CS", "NC", "CC"]


def running_slots(x, control):
    """Means and logsumexps of the slots after each token, by the recurrence."""
    logits = x @ control
    mean, mass = torch.zeros_like(logits[..., 0, :, None] * x[..., :1, :]), logits[..., 0, :]
    mass = torch.full_like(mass, -math.inf)
    means = []
    for t in range(x.shape[-2]):
        new = torch.logaddexp(mass, logits[..., t, :])
        kept, added = (mass - new).exp(), (logits[..., t, :] - new).exp()
        mean = kept[..., None] * mean + added[..., None] * x[..., t, None, :]
        mass = new
        means.append(mean)
    return torch.stack(means, dim=-3)


def by_recurrence(attention, q, k, v):
    keys = running_slots(k, attention.control_k)[..., -q.shape[-2] :, :, :]
    values = running_slots(v, attention.control_v)[..., -q.shape[-2] :, :, :]
    p = (torch.einsum("bhld,bhlrd->bhlr", q, keys) * q.shape[-1] ** -0.5).softmax(-1)
    return torch.einsum("bhlr,bhlrd->bhld", p, values)


def with_parameters(function, attention, inputs, gradient):
    """Output, and the gradients of the inputs and of the module's parameters."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    out = function(*leaves)
    return out, torch.autograd.grad(out, [*leaves, *attention.parameters()], gradient)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_one_slot_gives_its_value_to_every_query(pattern):
    q, k, v = qkv()
    attention = module("abc", pattern, slots=1)
    out = attention(q, k, v)
    slots = running_slots(v, attention.control_v)[..., 0, :]
    want = slots if pattern == "CS" else slots[:, :, -1:].expand_as(out)
    assert error(out, want) <= 1e-12


def test_a_slot_for_every_token_is_softmax_attention():
    q, k, v = draw((1, 1, 7, 8), (1, 1, 6, 8), (1, 1, 6, 8))
    attention = cab.attention("abc", pattern="NC", heads=1, head_dim=8, slots=6).double()
    one_hot = 60.0 * torch.eye(6).double()
    with torch.no_grad():
        attention.control_k.copy_(torch.linalg.pinv(k[0, 0]) @ one_hot)
        attention.control_v.copy_(torch.linalg.pinv(v[0, 0]) @ one_hot)
    softmax = cab.attention("softmax", pattern="NC", heads=1, head_dim=8)
    assert error(attention(q, k, v), softmax(q, k, v)) <= 1e-12


@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 255, 256, 257, 300])
def test_causal_chunks_equal_the_recurrence(length):
    q, k, v = qkv(length, length)
    attention = module("abc", "CS", per_head=True)
    want = by_recurrence(attention, q, k, v)
    assert error(attention(q, k, v), want) <= 1e-12
    for last in {1, length // 2 + 1}:
        assert error(attention(q[:, :, -last:], k, v), want[:, :, -last:]) <= 1e-12


@pytest.mark.parametrize(("segment", "chunk"), [(16, 8), (64, 64), (4, 1), (8, 2)])
def test_segments_and_chunks_do_not_matter(monkeypatch, segment, chunk):
    monkeypatch.setattr(scan, "_SEGMENT", segment)
    monkeypatch.setattr(scan, "CHUNK", chunk)
    q, k, v = qkv(53, 53)
    attention = module("abc", "CS")
    mask = torch.ones(2, 53, dtype=torch.bool)
    mask[1, 7:20] = False
    context, g = AttentionContext(key_mask=mask), torch.ones_like(v)
    got = gradients(lambda *x: attention(*x, context), (q, k, v), g)
    want = gradients(lambda *x: attention.reference(*x, context), (q, k, v), g)
    assert error(got[0], want[0]) <= 1e-12
    assert all(error(a, b) <= 1e-11 for a, b in zip(got[1], want[1], strict=True))


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("pattern", ["NS", "CS"])
def test_the_straightforward_form(pattern, per_head):
    q, k, v = qkv(50, 50)
    attention = module("abc", pattern, per_head=per_head)
    assert error(attention(q, k, v), attend(attention, q, k, v)) <= 1e-12


def test_cabs_causal_formula_mixes_no_tokens_and_ours_does():
    q, k, v = qkv(40, 40)
    attention = module("abc", "CS")
    # As in CAB: e^(a_t - C_t) times the token's own key and value, without the prefix's.
    a_k, a_v = k @ attention.control_k, v @ attention.control_v
    keys = (a_k - a_k.logcumsumexp(-2)).exp()[..., None] * k[..., None, :]
    values = (a_v - a_v.logcumsumexp(-2)).exp()[..., None] * v[..., None, :]
    p = (torch.einsum("bhld,bhlrd->bhlr", q, keys) * q.shape[-1] ** -0.5).softmax(-1)
    cabs = torch.einsum("bhlr,bhlrd->bhld", p, values)
    assert torch.cosine_similarity(cabs, v, dim=-1).min() >= 1 - 1e-12
    ours = torch.cosine_similarity(attention(q, k, v), v, dim=-1)
    assert error(ours[:, :, 0], torch.ones_like(ours[:, :, 0])) <= 1e-12
    assert ours[:, :, 20:].abs().mean() < 0.7


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_of_the_hand_written_backward(pattern, masked):
    q, k, v = qkv(37 if pattern.endswith("S") else 11, 37)
    attention = module("abc", pattern, per_head=masked)
    mask = torch.ones(2, 37, dtype=torch.bool)
    mask[0, :4], mask[1, 9:30] = False, False
    context = AttentionContext(key_mask=mask if masked else None)
    (g,) = draw(q.shape, seed=5)
    got = with_parameters(lambda *x: attention(*x, context), attention, (q, k, v), g)
    want = with_parameters(lambda *x: attention.reference(*x, context), attention, (q, k, v), g)
    assert error(got[0], want[0]) <= 1e-12
    assert len(got[1]) == 5
    assert all(error(a, b) <= 1e-11 for a, b in zip(got[1], want[1], strict=True))


@pytest.mark.parametrize("pattern", ["NS", "CS"])
def test_gradcheck(pattern):
    attention = cab.attention("abc", pattern=pattern, heads=1, head_dim=2, slots=2).double()
    inputs = [x.requires_grad_() for x in draw((1, 1, 3, 2), (1, 1, 3, 2), (1, 1, 3, 2))]
    assert torch.autograd.gradcheck(attention, inputs)


STEPS = {
    "growing by 5": torch.arange(100) * 5.0,
    "growing by 50": torch.arange(100) * 50.0,
    "falling by 5": torch.arange(100) * -5.0,
    "leaps of hundreds": torch.arange(100).remainder(7) * 60.0 - 200.0,
    "one leap": (torch.arange(100) > 40) * 400.0,
    "wide and random": draw((100,), dtype=torch.float32)[0].mul(200.0).round(),
}


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_control_logits_far_apart_within_a_chunk(steps):
    attention = cab.attention("abc", pattern="CS", heads=1, head_dim=4, slots=2)
    with torch.no_grad():
        for control in attention.parameters():
            control.zero_()
            control[0, 0, 0] = control[0, 1, 1] = 1024.0
    q, k, v, g = draw(*[(1, 1, 100, 4)] * 4, dtype=torch.float32)
    for x in (k, v):
        # Integer logits, which are exact in float32 too.
        x[..., 0], x[..., 1] = steps / 1024, (0.3 * steps.flip(0)).round() / 1024
    out, grads = with_parameters(attention, attention, (q, k, v), g)
    exact = attention.double()
    inputs = [x.double() for x in (q, k, v)]
    want, want_grads = with_parameters(exact.reference, exact, inputs, g.double())
    assert error(out, want) <= 2e-6
    # The controls amplify the rounding of the logits' gradient.
    tolerance = 2 * 1024 * torch.finfo(torch.float32).eps
    for got, expected in zip(grads, want_grads, strict=True):
        assert error(got, expected) <= tolerance
    assert error(exact(*inputs), want) <= 1e-12


@pytest.mark.parametrize("pattern", PATTERNS)
def test_masked_tokens_and_rows_without_any(pattern):
    q, k, v = draw((4, 3, 41, 5), (4, 3, 41, 5), (4, 3, 41, 5))
    attention = module("abc", pattern)
    mask = torch.ones(4, 41, dtype=torch.bool)
    mask[0, 30:], mask[1, :35], mask[2] = False, False, False
    context = AttentionContext(key_mask=mask)
    hidden = ~mask[:, None, :, None]
    k, v = k.masked_fill(hidden, torch.nan), v.masked_fill(hidden, torch.inf)
    out, grads = gradients(lambda *x: attention(*x, context), (q, k, v), torch.ones_like(v))
    assert all(g.isfinite().all() for g in grads)
    assert torch.equal(out[2], torch.zeros_like(out[2]))
    if pattern == "CS":
        assert torch.equal(out[1, :, :35], torch.zeros_like(out[1, :, :35]))
        want = attention(q[1:2, :, 35:], k[1:2, :, 35:], v[1:2, :, 35:])
        assert error(out[1:2, :, 35:], want) <= 1e-12
        want = attention(q[:1, :, :30], k[:1, :, :30], v[:1, :, :30])
        assert error(out[:1, :, :30], want) <= 1e-12
    else:
        want = attention(q[1:2], k[1:2, :, 35:], v[1:2, :, 35:])
        assert error(out[1:2], want) <= 1e-12
        assert error(out[:1], attention(q[:1], k[:1, :, :30], v[:1, :, :30])) <= 1e-12
    assert error(out[3:], attention(q[3:], k[3:], v[3:])) <= 1e-12


@pytest.mark.parametrize("pattern", PATTERNS)
def test_low_precision_and_autocast(pattern):
    q, k, v = (x.float() for x in qkv(70, 70))
    attention = module("abc", pattern).float()
    want = attention(q, k, v)
    low = attention(q.bfloat16(), k.bfloat16(), v.bfloat16())
    assert low.dtype == torch.bfloat16
    assert error(low, want.double()) <= 2e-2
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(attention(q, k, v), want)


def test_heads_share_the_controls_unless_asked():
    shared = cab.attention("abc", pattern="NS", heads=3, head_dim=5).double()
    own = cab.attention("abc", pattern="NS", heads=3, head_dim=5, per_head=True).double()
    assert sum(p.numel() for p in shared.parameters()) == 2 * 5 * 16
    assert sum(p.numel() for p in own.parameters()) == 3 * 2 * 5 * 16
    bound = 2**-0.5 * math.sqrt(6 / (5 + 16))
    for p in own.parameters():
        assert 0.9 * bound < p.abs().amax() <= bound
    with torch.no_grad():
        own.control_k.copy_(shared.control_k.expand_as(own.control_k))
        own.control_v.copy_(shared.control_v.expand_as(own.control_v))
    q, k, v = qkv()
    assert error(own(q, k, v), shared(q, k, v)) <= 1e-12


def test_steps_after_a_source_with_masked_tokens():
    q, k, v = qkv(4, 19)
    attention = module("abc", "CC")
    mask = torch.ones(2, 19, dtype=torch.bool)
    mask[0, 11:], mask[1] = False, False
    context = AttentionContext(key_mask=mask)
    state = attention.prefill(k, v, context)
    assert sum(x[0].numel() for x in state.tensors.values()) == attention.state_size(19)
    for t in range(4):
        out, state = attention.step(q[:, :, t : t + 1], None, None, state)
        assert error(out, attention(q, k, v, context)[:, :, t : t + 1]) <= 1e-12


def test_little_more_than_the_inputs_is_kept_for_the_backward_pass():
    q, k, v = (x.requires_grad_() for x in draw(*[(1, 2, 1024, 8)] * 3))
    attention = module("abc", "CS", dim=8)
    saved = []

    def keep(x):
        saved.append(x.untyped_storage().nbytes())
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        attention(q, k, v)
    assert sum(saved) <= 1.5 * sum(x.untyped_storage().nbytes() for x in (q, k, v))
