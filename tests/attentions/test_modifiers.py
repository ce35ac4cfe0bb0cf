"""Training-free modifiers of the softmax map: identities, sums, and cases worked by hand."""

import pytest
import torch

from attentions.modifiers.act_calib import ActCalibration
from attentions.modifiers.modpai import ModifiedPai
from attentions.modifiers.var_redist import AttentionRedistribution
from attentions.shared.exact import exact_softmax
from attentions.shared.modified_softmax import moved
from attentions.softmax import SoftmaxAttention
from cab import AttentionContext, AttentionSpec, Pattern
from tests.attentions.cases import error, module, qkv

HEADS, DIM, LENGTH = 2, 8, 17
MODIFIERS = {
    ActCalibration: {"threshold": 0.05},
    AttentionRedistribution: {"tau": 0.6, "rho": 0.9},
    ModifiedPai: {},
}
"""With options under which random inputs are modified"""
IDENTITY = {
    ActCalibration: {"beta": 1.0},
    AttentionRedistribution: {"p": 1.0},
    ModifiedPai: {"alpha": 0.0, "beta": 0.0},
}


def spec(pattern=Pattern.CAUSAL_SELF):
    return AttentionSpec(pattern, HEADS, DIM, embed_dim=HEADS * DIM, value_dim=LENGTH)


def inputs(seed=0):
    """q, k, unit values that show the map, and layer inputs."""
    generator = torch.Generator().manual_seed(seed)
    q, k = (
        torch.randn(2, HEADS, LENGTH, DIM, generator=generator, dtype=torch.float64)
        for _ in range(2)
    )
    layer = torch.randn(2, LENGTH, HEADS * DIM, generator=generator, dtype=torch.float64)
    return q, k, torch.eye(LENGTH, dtype=torch.float64).expand(2, HEADS, -1, -1), layer


def map_of(module, q, k, v, layer):
    return module(q, k, v, AttentionContext(query_input=layer, key_input=layer))


def plain(pattern, q, k, v):
    return SoftmaxAttention(spec(pattern))(q, k, v)


@pytest.mark.parametrize("pattern", Pattern)
@pytest.mark.parametrize("cls", MODIFIERS, ids=lambda c: c.info.id)
def test_rows_sum_to_one_and_the_form_equals_the_reference_where_it_acts(cls, pattern):
    q, k, v, layer = inputs()
    module = cls(spec(pattern), **MODIFIERS[cls]).eval()
    found = map_of(module, q, k, v, layer)
    assert (found - plain(pattern, q, k, v)).abs().max() > 1e-3, "nothing was modified"
    torch.testing.assert_close(found.sum(-1), torch.ones_like(found[..., 0]))
    assert found.min() >= 0
    context = AttentionContext(query_input=layer, key_input=layer)
    torch.testing.assert_close(module.reference(q, k, v, context), found)


@pytest.mark.parametrize("pattern", Pattern)
@pytest.mark.parametrize("cls", MODIFIERS, ids=lambda c: c.info.id)
def test_the_neutral_options_change_nothing(cls, pattern):
    q, k, v, layer = inputs()
    found = map_of(cls(spec(pattern), **{**MODIFIERS[cls], **IDENTITY[cls]}).eval(), q, k, v, layer)
    torch.testing.assert_close(found, plain(pattern, q, k, v))


@pytest.mark.parametrize("cls", MODIFIERS, ids=lambda c: c.info.id)
def test_training_and_heads_that_are_off_are_plain_softmax_to_the_bit(cls):
    q, k, v, layer = inputs()
    module = cls(spec(), **MODIFIERS[cls])
    want = plain(Pattern.CAUSAL_SELF, q, k, v)
    assert torch.equal(map_of(module.train(), q, k, v, layer), want)
    module.eval().switches()[0] = False
    found = map_of(module, q, k, v, layer)
    assert torch.equal(found[:, 0], want[:, 0])
    assert not torch.equal(found[:, 1], want[:, 1])


def test_moved_weight_by_hand():
    weights = torch.tensor([0.5, 0.3, 0.1, 0.1]).expand(1, 1, 1, 4)
    source = torch.tensor([True, False, False, False])
    found = moved(weights.log(), weights, source, ~source, 0.4)
    # 0.3 is freed and spread as 3 : 1 : 1.
    torch.testing.assert_close(found[0, 0, 0], torch.tensor([0.2, 0.48, 0.16, 0.16]))
    nowhere = torch.zeros_like(source)
    assert torch.equal(moved(weights.log(), weights, source, nowhere, 0.4), weights)


def test_moved_weight_finds_its_place_however_small_the_weights_there():
    scores = torch.tensor([200.0, 0.0, 1.0]).expand(1, 1, 1, 3)
    source = torch.tensor([True, False, False])
    found = moved(scores, scores.softmax(-1), source, ~source, 0.4)
    share = torch.tensor([0.0, 1.0]).softmax(0)
    torch.testing.assert_close(found[0, 0, 0], torch.tensor([0.4, *(0.6 * share).tolist()]))


@pytest.mark.parametrize("scale", [8.0, 30.0])
@pytest.mark.parametrize("name", ["softmax+act-calib", "softmax+var-redist", "softmax+modpai"])
@pytest.mark.parametrize("pattern", ["NS", "CS", "NC", "CC"])
def test_large_scores_in_single_precision(name, pattern, scale):
    q, k, v = (scale * x for x in qkv())
    attention = module(name, pattern)
    want = attention.reference(q, k, v)
    leaves = [x.float().requires_grad_() for x in (q, k, v)]
    got = attention(*leaves)
    assert error(got, want) <= 1e-4
    assert all(g.isfinite().all() for g in torch.autograd.grad(got.sum(), leaves))


def test_a_causal_mean_takes_all_queries():
    q, k, v = qkv()
    attention = module("softmax+act-calib", "CS")
    with pytest.raises(NotImplementedError, match="as many queries as keys, not 3 and 19"):
        attention(q[:, :, -3:], k, v)
    attention.switched.fill_(False)
    assert error(attention(q[:, :, -3:], k, v), attention(q, k, v)[:, :, -3:]) <= 1e-12


def test_calibration_keeps_the_first_sink():
    """Keys 1 and 3 get most of every row: 1 is kept, 3 is scaled."""
    scores = torch.tensor([0.0, 3.0, 0.0, 3.0, 0.0], dtype=torch.float64)
    q = torch.ones(1, 1, 5, 1, dtype=torch.float64)
    k = scores[None, None, :, None]
    v = torch.eye(5, dtype=torch.float64)[None, None]
    module = ActCalibration(
        AttentionSpec(Pattern.NONCAUSAL_SELF, 1, 1, value_dim=5), threshold=0.3, beta=0.4
    ).eval()
    before = scores.softmax(0)
    freed, rest = 0.6 * before[3], 1 - before[3]
    want = before * (1 + freed / rest)
    want[3] = 0.4 * before[3]
    torch.testing.assert_close(module(q, k, v)[0, 0], want.expand(5, 5))


def test_the_causal_mean_ends_as_the_published_one():
    """The last row sees the mean over all queries, which is the published column mean."""
    q, k, v, layer = inputs(3)
    module = ActCalibration(spec(), threshold=0.08).eval()
    seen = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
    weights = exact_softmax(q, k, seen)
    mean = weights.sum(-2) / torch.arange(LENGTH, 0, -1)
    sinks = mean > 0.08
    others = sinks & (sinks.cumsum(-1) > 1)
    assert others.any()
    others = others[..., None, :]
    want = moved(weights.log(), weights, others, seen & ~others, 0.4)[..., -1, :]
    torch.testing.assert_close(map_of(module, q, k, v, layer)[..., -1, :], want)


def test_redistribution_leaves_rows_that_rest_on_sinks():
    q, k, v, layer = inputs(1)
    layer[:, 5, 0] = 100.0  # one massive dimension
    k[:, :, 5] *= 4
    module = AttentionRedistribution(spec(Pattern.NONCAUSAL_SELF), tau=0.9).eval()
    before = plain(Pattern.NONCAUSAL_SELF, q, k, v)
    q[:, :, 3] = 40 * k[:, :, 5]
    after = map_of(module, q, k, v, layer)
    assert after[:, :, 3, 5].min() > 0.99  # more than rho of the row: not image-centric
    rows = [i for i in range(LENGTH) if i != 3]
    changed = before[:, :, rows, 5] <= 0.5
    torch.testing.assert_close(after[:, :, rows, 5][changed], 0.6 * before[:, :, rows, 5][changed])


@pytest.mark.parametrize(
    ("cls", "option"),
    [(ActCalibration, "beta"), (AttentionRedistribution, "p"), (ModifiedPai, "share")],
)
def test_factors_above_one_are_refused(cls, option):
    with pytest.raises(ValueError, match="at most 1"):
        cls(spec(), **{option: 1.5})
