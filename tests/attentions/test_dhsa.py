"""Dynamic hierarchical sparse attention: where chunks end, what is read, and what it hangs on."""

import pytest
import torch

import cab
from attentions.shared.content_chunks import boundary_scores, chunk_starts
from cab import AttentionContext
from tests.attentions.cases import draw, error, gradients, module, qkv

PATTERNS = ("NS", "CS", "NC", "CC")
SMALL = {"query_block": 8, "least": 10, "near_keys": 6, "first_keys": 3, "chunk": 8}
SETTINGS = [
    {},
    {"threshold": 0.5, "least": 5, "density": 0.5},
    {"query_block": 1, "chunk": 6, "spacing": 3},
    {"near_keys": 7, "first_keys": 1, "window": 2},
]
SINGLE = {"chunk": 1, "spacing": 1, "threshold": -1e9, "window": 1}
"""Every key a chunk"""


def build(pattern, **options):
    return module("dhsa", pattern, **(SMALL | options))


def inputs(pattern, length=60):
    return qkv(37 if pattern in ("NC", "CC") else length, length)


def holes(pattern, length=60):
    rows = torch.rand(2, length, generator=torch.Generator().manual_seed(1)) > 0.3
    rows[1, :17] = False
    rows[0, -3:] = False
    own = rows if pattern in ("NS", "CS") else rows[:, 5:42]
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
        out, found = gradients(lambda *x, c=context: attention(*x, c), (q, k, v), g)
        want_out, want = gradients(lambda *x, c=context: attention.reference(*x, c), (q, k, v), g)
        if context is not None:
            valid = context.query_mask[:, None, :, None]
            out, want_out = out * valid, want_out * valid
        assert error(out, want_out) <= 1e-12
        for x, y in zip(found, want, strict=True):
            assert error(x, y) <= 1e-12


@pytest.mark.parametrize("options", [{"least": 60}, {"density": 1.0}, {"first_keys": 60}], ids=str)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_budget_of_all_keys_is_softmax(pattern, options):
    q, k, v = inputs(pattern)
    attention, want = build(pattern, **options), module("softmax", pattern)
    for context in (None, holes(pattern)):
        valid = 1 if context is None else context.query_mask[:, None, :, None]
        assert error(attention(q, k, v, context) * valid, want(q, k, v, context) * valid) <= 1e-12
        assert error(attention.density(q, k, context), torch.ones(2, 3).double()) <= 1e-12


@pytest.mark.parametrize("query_block", [1, 8])
def test_chunks_of_one_key_are_the_best_keys_by_their_score(query_block):
    q, k, v = inputs("NC")
    options = {"first_keys": 0, "near_keys": 0, "query_block": query_block, "least": 7}
    attention = build("NC", **SINGLE, **options, density=0.0)
    assert attention._starts(k, torch.ones(2, 60, dtype=torch.bool)).all()
    for s in range(0, 37, query_block):
        own = q[:, :, s : s + query_block]
        scores = torch.einsum("bd,bjd->bj", own.mean((1, 2)), k.mean(1))
        best = scores.topk(7, dim=-1).indices[:, None, :, None].expand(-1, 3, -1, 5)
        weights = (own @ k.gather(2, best).mT * 5**-0.5).softmax(-1)
        out = attention(q, k, v)[:, :, s : s + query_block]
        assert error(out, weights @ v.gather(2, best)) <= 1e-12


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_is_read_does_not_hang_on_the_length_of_queries(pattern):
    q, k, _ = inputs(pattern)
    attention = build(pattern)
    first, again = (attention._route(x, k, AttentionContext()).units for x in (q, 7.3 * q))
    assert torch.equal(first, again)


def test_boundaries_are_where_the_content_changes():
    # Three topics, of 20, 13 and 27 keys.
    topics = torch.eye(3).double().repeat_interleave(torch.tensor([20, 13, 27]), 0)
    (noise,) = draw((1, 2, 60, 3))
    k = topics[None, None] + 0.05 * noise
    valid = torch.ones(1, 60, dtype=torch.bool)
    for pattern in PATTERNS:
        attention = build(pattern, threshold=1.5, spacing=8)
        starts = attention._starts(k, valid)[0].nonzero()[:, 0]
        if pattern == "CS":
            # The bar is learned from what came before: low at first, and passed on the way up.
            assert ((starts[:, None] - torch.tensor([20, 33])).abs() <= 3).any(0).all()
        else:
            assert starts.tolist() == [0, 20, 33]


def test_scores_compare_means_of_valid_keys():
    _, k, _ = qkv(20, 20)
    valid = torch.rand(2, 20, generator=torch.Generator().manual_seed(1)) > 0.4
    k = k * valid[:, None, :, None]
    scores, candidates = boundary_scores(k, valid, 3)
    for b in range(2):
        for i in range(20):
            sides = [range(max(0, i - 2), i + 1), range(i + 1, min(20, i + 4))]
            sides = [[j for j in side if valid[b, j]] for side in sides]
            assert bool(candidates[b, i]) == all(map(len, sides))
            if candidates[b, i]:
                left, right = (k[b, :, side].mean(1).flatten() for side in sides)
                want = 1 - left @ right / (left.norm() * right.norm())
                assert abs(scores[b, i] - want) <= 1e-12


def test_of_boundaries_that_are_near_the_better_or_the_first_is_kept():
    scores = torch.tensor([[0.0, 3.0, 5.0, 0.0, 0.0, 4.0, 0.0, 2.0]]).double()
    some = torch.ones(1, 8, dtype=torch.bool)
    some[:, -1] = False
    best = chunk_starts(scores, some, threshold=0.0, spacing=3, most=[9], online=False)
    assert best[0].nonzero()[:, 0].tolist() == [0, 3, 6]
    few = chunk_starts(scores, some, threshold=0.0, spacing=1, most=[2], online=False)
    assert few[0].nonzero()[:, 0].tolist() == [0, 3]
    online = chunk_starts(scores, some, threshold=0.0, spacing=3, most=[9], online=True)
    assert online[0].nonzero()[:, 0].tolist() == [0, 2, 6]


@pytest.mark.parametrize("options", SETTINGS, ids=str)
@pytest.mark.parametrize("pattern", ["CS", "CC"])
def test_no_output_hangs_on_a_later_query_or_key(pattern, options):
    q, k, v = inputs(pattern)
    attention = build(pattern, **options)
    whole = attention(q, k, v)
    for t in (1, 7, 8, 9, 17, 24, 36):
        later = [x.clone() for x in (q, k, v)]
        later[0][:, :, t:] *= -3
        if pattern == "CS":
            for x in later[1:]:
                x[:, :, t:] = x[:, :, t:].flip(-1) * -3
        assert error(attention(*later)[:, :, :t], whole[:, :, :t]) <= 1e-14
        cut = [x[:, :, :t] if pattern == "CS" else x for x in (k, v)]
        assert error(attention(q[:, :, :t], *cut), whole[:, :, :t]) <= 1e-12


def test_noncausal_outputs_do_hang_on_the_queries_of_their_block():
    q, k, v = inputs("NS")
    attention = build("NS")
    other = q.clone()
    other[:, :, 1:8] *= -3
    assert error(attention(other, k, v)[:, :, :1], attention(q, k, v)[:, :, :1]) > 1e-3


def test_the_budget_is_the_density():
    q, k, _ = draw(*[(1, 2, 512, 16)] * 3)
    attention = module("dhsa", "NC", 16, density=0.25)
    assert attention.density(q, k).tolist() == [[0.25, 0.25]]


def test_fewer_queries_than_keys_are_refused():
    q, k, v = inputs("CS")
    with pytest.raises(NotImplementedError, match="Lq must be Lk"):
        build("CS")(q[:, :, -3:], k, v)


def test_boundaries_must_be_known_before_the_keys_that_are_ranked():
    with pytest.raises(ValueError, match="near_keys"):
        build("CS", near_keys=3)
    paper = cab.attention("dhsa", pattern="CS", heads=2, head_dim=8, preset="paper")
    assert (paper.block, paper.threshold) == (128, 1.1)
