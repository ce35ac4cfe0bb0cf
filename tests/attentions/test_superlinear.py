"""Superlinear attention: what it equals, that every key is in reach, and what nothing hangs on."""

import math

import pytest
import torch

import cab
from attentions.superlinear import anchor_distance
from cab import AttentionContext
from tests.attentions.cases import draw, error, gradients, module, qkv

PATTERNS = ("CS", "CC")
SETTINGS = [
    {},
    {"sw_index": 1, "spans": 2, "forward_factor": 1.0},
    {"search_power": 0.6, "span_power": 0.55, "spans": 4},
    {"search_power": 1.0, "span_power": 0.0},
]


def build(pattern, **options):
    """With a search that is not the attention's own query."""
    attention = module("superlinear", pattern, **({"sw_index": 2} | options))
    (noise,) = draw(attention.search.shape, seed=7)
    with torch.no_grad():
        attention.search.add_(0.3 * noise)
    return attention


def inputs(pattern, length=83):
    return qkv(37 if pattern == "CC" else length, length)


def holes(pattern, length=83):
    rows = torch.rand(2, length, generator=torch.Generator().manual_seed(1)) > 0.3
    rows[1, :30] = False
    rows[0, -3:] = False
    own = rows if pattern == "CS" else rows[:, 5:42]
    return AttentionContext(query_mask=own, key_mask=rows)


@pytest.mark.parametrize("options", SETTINGS, ids=str)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_equals_the_reference_with_gradients(pattern, options):
    q, k, v = inputs(pattern)
    (g,) = draw(q.shape, seed=3)
    attention = build(pattern, **options)
    for context in (None, holes(pattern)):
        if context is not None:
            g = g * context.query_mask[:, None, :, None]
        tensors = (q, k, v, attention.search)

        def call(function, q, k, v, search, c=context):
            calls = _Calls(attention, function)
            return torch.func.functional_call(calls, {"a.search": search}, (q, k, v, c))

        out, found = gradients(lambda *x: call("forward", *x), tensors, g)
        want_out, want = gradients(lambda *x: call("reference", *x), tensors, g)
        if context is not None:
            valid = context.query_mask[:, None, :, None]
            out, want_out = out * valid, want_out * valid
        assert error(out, want_out) <= 1e-12
        for x, y in zip(found, want, strict=True):
            assert error(x, y) <= 1e-12


class _Calls(torch.nn.Module):
    """A method of a module, for `functional_call`."""

    def __init__(self, attention, method):
        super().__init__()
        self.a, self.method = attention, method

    def forward(self, *tensors):
        return getattr(self.a, self.method)(*tensors)


@pytest.mark.parametrize(
    "options",
    [
        {"sw_index": 9},  # a window as long as the sequence
        {"back": 1e6, "forward_factor": 1e6},  # spans as long as what is before the window
        {"back": 1e6, "forward_factor": 1e6, "search_power": 0.7},
    ],
    ids=str,
)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_reading_everything_is_softmax_whatever_the_gates(pattern, options):
    q, k, v = inputs(pattern)
    attention, want = build(pattern, **options), module("softmax", pattern)
    assert error(attention(q, k, v), want(q, k, v)) <= 1e-12
    assert error(attention.density(q, k), torch.ones(2, 3).double()) <= 1e-12
    if "back" not in options:
        context = holes(pattern)
        valid = context.query_mask[:, None, :, None]
        assert error(attention(q, k, v, context) * valid, want(q, k, v, context) * valid) <= 1e-12


def unreached(length, back, window_index):
    """Keys before the window of the last query that no candidate span covers."""
    t, n = length - 1, length
    window = anchor_distance(window_index + 1, 0.5)
    reach = math.ceil(back * math.sqrt(n))
    covered, m = set(range(t - window + 1, t + 1)), window_index + 1
    while (distance := anchor_distance(m, 0.5)) <= t:
        a = t - distance
        covered |= set(range(max(0, a - reach), a + 1))
        m += 1
    return set(range(length)) - covered


@pytest.mark.parametrize("index", [1, 2, 7])
def test_with_factor_2_every_key_is_in_some_span_and_with_1_not(index):
    lengths = [*range(1, 400, 7), 1000, 2500]
    assert not any(unreached(n, 2.0, index) for n in lengths)
    assert any(unreached(n, 1.0, index) for n in lengths)
    with pytest.raises(cab.errors.OptionError, match="back"):
        cab.attention("superlinear", pattern="CS", heads=1, head_dim=4, back=1.0)


def test_any_single_key_can_be_found():
    # The search points at one anchor, and the key to be found lies in its span.
    length, dim = 300, 4
    attention = module("superlinear", "CS", dim, sw_index=2, spans=1)
    t, reach = length - 1, math.ceil(2 * math.sqrt(length))
    distances = [anchor_distance(m, 0.5) for m in range(3, 18)]
    for target in (0, 3, 77, 150, 289):
        anchor = next(t - d for d in distances if t - d - reach <= target <= t - d)
        q, k = torch.zeros(1, 3, length, dim).double(), torch.zeros(1, 3, length, dim).double()
        v = torch.zeros_like(k)
        q[..., -1, 0], k[..., anchor, 0], v[..., target, :] = 1.0, 1.0, 1.0
        assert (attention(q, k, v)[:, :, -1] > 1e-3).all()


def test_windows_and_anchors_of_the_paper():
    attention = module("superlinear", "CS")
    assert attention.window == 63
    assert attention._distances(200) == [63, 80, 99, 120, 143, 168, 195]
    released = cab.attention("superlinear", pattern="CS", heads=1, head_dim=4, preset="released")
    assert released.window == 2032


def test_each_span_has_a_softmax_of_its_own_with_the_window():
    # One query, two spans: gates times softmax over window and span.
    q, k, v = qkv(1, 60)
    attention = build("CC", spans=2)
    distances = attention._distances(60)
    search = torch.einsum("bhid,hde->bhie", q, attention.search)
    anchors = 59 - torch.tensor(distances)
    scores = (search @ k[:, :, anchors].mT)[:, :, 0]
    gate, index = scores.topk(2)
    gate, want = gate.softmax(-1), torch.zeros(2, 3, 5).double()
    for b in range(2):
        for h in range(3):
            for m in range(2):
                a = int(anchors[index[b, h, m]])
                low = max(0, a - math.ceil(2 * math.sqrt(60)))
                read = [*range(low, min(a, 51) + 1), *range(52, 60)]
                weights = (k[b, h, read] @ q[b, h, 0] * 5**-0.5).softmax(-1)
                want[b, h] += gate[b, h, m] * (weights @ v[b, h, read])
    assert error(attention(q, k, v)[:, :, 0], want.detach()) <= 1e-12


@pytest.mark.parametrize("options", SETTINGS, ids=str)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_output_hangs_on_a_later_query_or_key(pattern, options):
    q, k, v = inputs(pattern)
    attention = build(pattern, **options)
    whole = attention(q, k, v)
    for t in (1, 8, 9, 17, 36):
        later = [x.clone() for x in (q, k, v)]
        later[0][:, :, t:] *= -3
        if pattern == "CS":
            for x in later[1:]:
                x[:, :, t:] *= -3
        assert error(attention(*later)[:, :, :t], whole[:, :, :t]) <= 1e-14
        cut = [x[:, :, :t] if pattern == "CS" else x for x in (k, v)]
        assert error(attention(q[:, :, :t], *cut), whole[:, :, :t]) <= 1e-12


def test_a_token_alone_chooses_as_the_whole_does():
    q, k, v = inputs("CS")
    attention = build("CS")
    whole = attention(q, k, v)
    for last in (1, 2, 30):
        assert error(attention(q[:, :, -last:], k, v), whole[:, :, -last:]) <= 1e-12


def test_density_counts_each_key_once():
    q, k, _ = inputs("CS")
    attention = build("CS", spans=3, forward_factor=1.0)
    routes = attention._route(attention._seeking(q), k, None)
    read = torch.zeros(2, 3, 83, 83, dtype=torch.bool)
    j = torch.arange(83)
    for first, last in zip(routes.first.unbind(-1), routes.last.unbind(-1), strict=True):
        read |= (j >= first[..., None]) & (j < last[..., None])
    want = read.sum((2, 3)).double() / (83 * 84 / 2)
    assert error(attention.density(q, k), want) <= 1e-12


def test_the_search_learns_from_the_gates():
    q, k, v = inputs("CS")
    attention = module("superlinear", "CS", sw_index=2)
    attention(q, k, v).square().sum().backward()
    assert attention.search.grad.abs().max() > 0
    alone = module("superlinear", "CS", sw_index=2, spans=1)
    alone(q, k, v).square().sum().backward()
    assert alone.search.grad.abs().max() < 1e-12
