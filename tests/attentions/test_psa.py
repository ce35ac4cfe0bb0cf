"""Pyramid sparse attention: what it equals and reads, and that no later query routes an earlier."""

import pytest
import torch

import cab
from attentions.shared.block_importance import IMPORTANCE, Blocks
from attentions.shared.pyramids import (
    PyramidRules,
    coarsest_similar_level,
    levels_by_rank,
    shares_of_density,
)
from cab import AttentionContext
from tests.attentions.cases import draw, error, gradients, module, qkv

PATTERNS = ("NS", "CS", "NC", "CC")
ALL = {"share_1": 1.0, "share_2": 0.0, "share_4": 0.0, "share_8": 0.0}
SETTINGS = [
    {},
    {"query_block": 1},
    {"query_block": 16},
    {"block": 16},
    {"importance": "meanpool"},
    {"importance": "xattn"},
    {"selection": "threshold", "similarity": "text"},
    {"selection": "threshold", "importance": "xattn"},
]


def build(pattern, **options):
    return module("psa", pattern, **({"block": 8, "query_block": 8} | options))


def inputs(pattern, length=45):
    q, k, v = qkv(37 if pattern in ("NC", "CC") else length, length)
    return q, 2 * k, v


def holes(pattern, length=45):
    """Masks with a row that begins with a block of padding."""
    rows = torch.rand(2, length, generator=torch.Generator().manual_seed(1)) > 0.3
    rows[1, :17] = False
    own = rows if pattern in ("NS", "CS") else rows[:, 5:42]
    return AttentionContext(query_mask=own, key_mask=rows)


@pytest.mark.parametrize(
    ("pattern", "options"),
    # Each of the four patterns, and every setting on two of them.
    [
        pytest.param(pattern, options, id=f"{pattern} {options}")
        for i, options in enumerate(SETTINGS)
        for j, pattern in enumerate(PATTERNS)
        if (i + j) % 2 == 0 or not options
    ],
)
def test_equals_the_reference_with_gradients(pattern, options):
    q, k, v = inputs(pattern)
    if "similarity" in options:
        k = (k * 0.3).cumsum(-2)
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


@pytest.mark.parametrize("importance", IMPORTANCE)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_all_blocks_at_level_1_are_softmax(pattern, importance):
    q, k, v = inputs(pattern)
    attention = build(pattern, importance=importance, **ALL)
    want = module("softmax", pattern)
    for context in (None, holes(pattern)):
        valid = 1 if context is None else context.query_mask[:, None, :, None]
        assert error(attention(q, k, v, context) * valid, want(q, k, v, context) * valid) <= 1e-12
        assert error(attention.density(q, k, context), torch.ones(2, 3).double()) <= 1e-12


@pytest.mark.parametrize("share", ["share_1", "share_2", "share_4", "share_8"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_groups_of_eight_equal_keys_and_values_are_exact_at_any_level(pattern, share):
    q, k, v = inputs(pattern, 64)
    k, v = (x[:, :, ::8].repeat_interleave(8, 2) for x in (k, v))
    shares = dict.fromkeys(("share_1", "share_2", "share_4", "share_8"), 0.0) | {share: 1.0}
    mixed = {"share_1": 0.3, "share_2": 0.2, "share_4": 0.2, "share_8": 0.3}
    want = module("softmax", pattern)(q, k, v)
    for options in (shares, mixed):
        attention = build(pattern, block=16, query_block=16, **options)
        assert error(attention(q, k, v), want) <= 1e-12
    # Keys that are masked leave the means of the others, and their number.
    context = holes(pattern, 64)
    valid = context.query_mask[:, None, :, None]
    want = module("softmax", pattern)(q, k, v, context)
    assert error(attention(q, k, v, context) * valid, want * valid) <= 1e-12


def test_a_pooled_slot_counts_as_its_tokens():
    # The better of two blocks is read token by token in any case, the other as four means of 8.
    q, k, v = qkv(8, 64)
    k[:, :, :32] += 3 * q.mean(2, keepdim=True)
    attention = build("NC", block=32, importance="meanpool", share_1=0.0, share_8=1.0,
                      share_2=0.0, share_4=0.0)  # fmt: skip
    pooled_k, pooled_v = (x[:, :, 32:].unflatten(2, (4, 8)).mean(3) for x in (k, v))
    scores = torch.cat([q @ k[:, :, :32].mT, q @ pooled_k.mT], -1) * 5**-0.5
    scores[..., 32:] += torch.tensor(8.0).double().log()
    want = scores.softmax(-1) @ torch.cat([v[:, :, :32], pooled_v], 2)
    assert error(attention(q, k, v), want) <= 1e-12
    assert error(attention.density(q, k), torch.full((2, 3), 36 / 64).double()) <= 1e-12


@pytest.mark.parametrize("importance", IMPORTANCE)
@pytest.mark.parametrize("query_block", [1, 8, 16])
@pytest.mark.parametrize("pattern", ["CS", "CC"])
def test_no_output_hangs_on_a_later_query_or_key(pattern, query_block, importance):
    q, k, v = inputs(pattern)
    attention = build(pattern, query_block=query_block, importance=importance)
    whole = attention(q, k, v)
    for t in (1, 7, 8, 17, 36):
        later = [x.clone() for x in (q, k, v)]
        later[0][:, :, t:] *= -3
        if pattern == "CS":
            for x in later[1:]:
                x[:, :, t:] *= -3
        assert error(attention(*later)[:, :, :t], whole[:, :, :t]) <= 1e-14
        cut = [x[:, :, :t] if pattern == "CS" else x for x in (k, v)]
        assert error(attention(q[:, :, :t], *cut), whole[:, :, :t]) <= 1e-12


def test_noncausal_outputs_do_hang_on_the_queries_of_their_block():
    q, k, v = inputs("NS")
    attention = build("NS", share_1=0.15, share_2=0.0, share_4=0.0, share_8=0.0)
    other = q.clone()
    other[:, :, 1:8] *= -3
    assert error(attention(other, k, v)[:, :, :1], attention(q, k, v)[:, :, :1]) > 1e-3


def test_quotas_of_ranks():
    rules = PyramidRules(8, 8, "maxexp", "topk", (0.15, 0.15, 0.2, 0.25), None, False, False)
    values = torch.arange(40.0, 0, -1)[None]
    levels = levels_by_rank(rules, values, torch.tensor([[40]]))[0].tolist()
    assert levels == [1] * 6 + [2] * 6 + [4] * 8 + [8] * 10 + [0] * 10
    levels = levels_by_rank(rules, values, torch.tensor([[7]]))[0].tolist()
    assert levels[:7] == [1, 2, 4, 8, 8, 0, 0]
    assert not any(levels[7:])


def test_quotas_of_importance():
    rules = PyramidRules(8, 8, "maxexp", "threshold", (0.4, 0.1, 0.1, 0.2), None, False, False)
    shares = torch.tensor([[0.3, 0.15, 0.12, 0.1, 0.1, 0.08, 0.08, 0.07]]).double()
    # Cumulative .30 .45 .57 .67 .77 .85 .93 1: one within .4, two within .5, three, five.
    levels = levels_by_rank(rules, shares.log(), torch.tensor([[8]]))[0].tolist()
    assert levels == [1, 1, 2, 4, 8, 8, 0, 0]
    flat = torch.tensor([[0.9, 0.05, 0.05]]).double()
    levels = levels_by_rank(rules, flat.log(), torch.tensor([[3]]))[0].tolist()
    assert levels == [1, 0, 0]  # nothing within any share: the least number at level 1 alone


def test_similarity_caps_the_level():
    generator = torch.Generator().manual_seed(0)
    alike = torch.ones(1, 1, 8, 5).double()
    halves = torch.cat([torch.ones(4, 5), -torch.ones(4, 5)])[None, None].double()
    pairs = torch.randn(4, 5, generator=generator).double().repeat_interleave(2, 0)[None, None]
    other = torch.eye(8).double()[None, None, :, :5]
    blocks = Blocks.of(torch.cat([alike, halves, pairs, other], 2), None, 8)
    assert coarsest_similar_level(blocks, (0.7, 0.65, 0.6))[0, 0].tolist() == [8, 4, 2, 1]


def test_sampled_places_are_saved_and_shared_by_all_blocks():
    attention = build("NS", block=16)
    assert attention.sampled_queries.tolist() == sorted(set(attention.sampled_queries.tolist()))
    assert [len(x) for x in (attention.sampled_queries, attention.sampled_keys)] == [2, 4]
    assert {"sampled_queries", "sampled_keys"} <= set(attention.state_dict())


@pytest.mark.parametrize("preset", ["video", "wan", "language"])
def test_presets_say_what_density_they_read(preset):
    attention = cab.attention("psa", pattern="NS", heads=3, head_dim=5, preset=preset).double()
    q, k, v = qkv(1280, 1280)
    density = attention.density(q, k).mean().item()
    if preset == "video":
        # 20 blocks: 2 at level 1, 1 at level 2, 4 at level 8.
        assert density == pytest.approx((2 + 1 / 2 + 4 / 8) / 20)
    assert 0 < density < 1
    assert attention(q, k, v).isfinite().all()


def test_fewer_queries_than_keys_are_refused():
    q, k, v = inputs("CS")
    with pytest.raises(NotImplementedError, match="Lq must be Lk"):
        build("CS")(q[:, :, -3:], k, v)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": 12}, "multiple of 8"),
        ({"query_block": 12}, "must divide"),
        ({"share_1": 0.9, "share_8": 0.2}, "add up"),
        ({"density": 0.3, "selection": "threshold"}, "of topk"),
        ({"density": 0.3} | ALL | {"share_1": 0.0}, "no shares of density"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build("NS", **options)


@pytest.mark.parametrize("density", [0.05, 0.3, 0.408, 0.5, 0.9, 1.0])
def test_shares_are_scaled_to_a_density(density):
    own = (0.15, 0.15, 0.2, 0.25)
    shares = shares_of_density(own, density)
    read = sum(x / level for x, level in zip(shares, (1, 2, 4, 8), strict=True))
    assert read == pytest.approx(density)
    assert sum(shares) <= 1 + 1e-9
    assert min(shares) >= 0
    # All but the first keep their proportions.
    assert shares[1] * own[3] == pytest.approx(shares[3] * own[1])
    if sum(shares) < 1 - 1e-9:
        assert shares[0] * own[3] == pytest.approx(shares[3] * own[0])


@pytest.mark.parametrize("density", [0.2, 0.5, 0.8])
def test_the_option_density_is_what_is_read(density):
    q, k, v = qkv(320, 320)
    attention = build("NC", density=density)
    assert error(attention(q, k, v), attention.reference(q, k, v)) <= 1e-12
    assert attention.density(q, k).mean().item() == pytest.approx(density, abs=0.04)
    assert build("NC", density=0.0).rules == build("NC").rules
