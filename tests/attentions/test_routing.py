"""Routing attention: what it equals, that centroids follow, and what no output hangs on."""

import pytest
import torch

import cab
from attentions.shared.centroids import Centroids, standardised
from cab import AttentionContext
from tests.attentions.cases import draw, error, gradients, module, qkv

PATTERNS = ("NS", "CS", "NC", "CC")
SETTINGS = [{}, {"shared": True, "tau": 0.3}, {"density": 0.3, "clusters": 3}, {"clusters": 1}]


def build(pattern, **options):
    torch.manual_seed(0)
    return module("routing", pattern, **({"clusters": 5, "window": 7, "density": 0.15} | options))


def inputs(pattern, length=61):
    return qkv(37 if pattern in ("NC", "CC") else length, length)


def holes(pattern, length=61):
    rows = torch.rand(2, length, generator=torch.Generator().manual_seed(1)) > 0.3
    rows[1, :17] = False
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
        # Where queries are keys the queries have no gradient.
        out, found = gradients(lambda *x, c=context: attention(*x, c) + 0 * x[0], (q, k, v), g)
        want_out, want = gradients(
            lambda *x, c=context: attention.reference(*x, c) + 0 * x[0], (q, k, v), g
        )
        if context is not None:
            valid = context.query_mask[:, None, :, None]
            out, want_out = out * valid, want_out * valid
        assert error(out, want_out) <= 1e-12
        for x, y in zip(found, want, strict=True):
            assert error(x, y) <= 1e-12


@pytest.mark.parametrize("pattern", PATTERNS)
def test_one_cluster_of_all_is_softmax_of_standardised_queries_and_keys(pattern):
    q, k, v = inputs(pattern)
    attention, softmax = build(pattern, clusters=1, window=61), module("softmax", pattern)
    assert error(attention(q, k, v), softmax(standardised(q), standardised(k), v)) <= 1e-12
    assert error(attention.density(q, k), torch.ones(2, 3).double()) <= 1e-12
    context = holes(pattern)
    valid = context.query_mask[:, None, :, None]
    want = softmax(standardised(q), standardised(k), v, context)
    assert error(attention(q, k, v, context) * valid, want * valid) <= 1e-12


@pytest.mark.parametrize("pattern", ["NS", "NC"])
def test_is_the_mean_over_clusters_of_softmax_between_their_best(pattern):
    q, k, v = inputs(pattern)
    attention = build(pattern)
    means = attention.centroids.means(q.dtype)
    queries, keys = standardised(q), standardised(k)
    want, times = torch.zeros_like(q), torch.zeros(q.shape[:3])
    for b in range(2):
        for h in range(3):
            for c in range(5):
                # w is L / C where that is more than the density.
                own, source = (
                    (x[b, h] @ means[h, c]).topk(-(-x.shape[2] // 5)).indices
                    for x in (queries, keys)
                )
                weights = (queries[b, h, own] @ keys[b, h, source].mT * 5**-0.5).softmax(-1)
                want[b, h, own] += weights @ v[b, h, source]
                times[b, h, own] += 1
    assert (times == 0).any()
    assert (times > 1).any()
    out = attention(q, k, v)
    assert error(out, want / times.clamp(min=1)[..., None]) <= 1e-12
    assert not out[times == 0].any()


@pytest.mark.parametrize("shared", [False, True])
def test_a_causal_token_reads_the_last_of_its_cluster_and_itself(shared):
    q, k, v = inputs("CS")
    attention = build("CS", shared=shared, window=4)
    keys = standardised(k)
    queries = keys if shared else standardised(q)
    of_queries, of_keys = (attention.centroids.similarities(x).argmax(-1) for x in (queries, keys))
    out = attention(q, k, v)
    for b, h, t in ((0, 0, 0), (0, 2, 13), (1, 1, 40), (1, 2, 60)):
        read = [j for j in range(t + 1) if of_keys[b, h, j] == of_queries[b, h, t]][-4:]
        read = sorted({*read, t})
        weights = (keys[b, h, read] @ queries[b, h, t] * 5**-0.5).softmax(-1)
        assert error(out[b, h, t], weights @ v[b, h, read]) <= 1e-12


@pytest.mark.parametrize("options", SETTINGS, ids=str)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("pattern", ["CS", "CC"])
def test_no_output_hangs_on_a_later_query_or_key(pattern, training, options):
    q, k, v = inputs(pattern)
    attend = lambda *x: build(pattern, **options).train(training)(*x)  # noqa: E731 - a fresh one
    whole = attend(q, k, v)
    for t in (1, 7, 8, 17, 36):
        later = [x.clone() for x in (q, k, v)]
        later[0][:, :, t:] = later[0][:, :, t:].flip(-1) * -3
        if pattern == "CS":
            for x in later[1:]:
                x[:, :, t:] = x[:, :, t:].flip(-1) * -3
        assert error(attend(*later)[:, :, :t], whole[:, :, :t]) <= 1e-14
        cut = [x[:, :, :t] if pattern == "CS" else x for x in (k, v)]
        assert error(attend(q[:, :, :t], *cut), whole[:, :, :t]) <= 1e-12


def test_the_best_of_a_sequence_do_hang_on_what_comes_later():
    # Why the causal patterns are adapted: the published choice of w tokens.
    q, k, v = inputs("NS")
    attention = build("NS")
    cut = attention(*(x[:, :, :30] for x in (q, k, v)))
    assert error(cut, attention(q, k, v)[:, :, :30]) > 0.1


@pytest.mark.parametrize("shared", [False, True])
def test_steps_keep_a_state_of_one_size(shared):
    q, k, v = inputs("CS")
    attention = build("CS", shared=shared, window=3)
    whole = attention(q, k, v)
    state = attention.prefill(k[:, :, :20], v[:, :, :20])
    size = sum(x.numel() for x in state.tensors.values()) // 2
    for t in range(20, 61):
        token = (x[:, :, t : t + 1] for x in (q, k, v))
        out, state = attention.step(*token, state)
        assert error(out, whole[:, :, t : t + 1]) <= 1e-12
    assert size == sum(x.numel() for x in state.tensors.values()) // 2
    assert size == attention.state_size(20) == attention.state_size(61)


def test_centroids_follow_what_is_nearest_to_them():
    torch.manual_seed(0)
    directions = standardised(torch.randn(1, 3, 8).double())
    centroids = Centroids(1, 3, 8, 0.5).double()
    centroids.sums = directions + 0.1 * torch.randn(1, 3, 8)
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        topic = torch.randint(0, 3, (2, 1, 50), generator=generator)
        x = directions[0][topic] + 0.05 * torch.randn(2, 1, 50, 8, generator=generator)
        nearest = centroids.similarities(x).argmax(-1)
        assert torch.equal(nearest, topic)
        centroids.follow(x, nearest, None)
    assert error(centroids.means(torch.float64), directions) <= 0.02
    assert centroids.counts.sum() == pytest.approx(100, rel=1e-3)


def test_masked_tokens_move_no_centroid():
    x, _, _ = qkv(9, 9, dim=8)
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[:, 5:] = False
    found = []
    for tokens, valid in ((x, mask), (x[:, :, :5], None)):
        torch.manual_seed(0)
        centroids = Centroids(3, 4, 8, 0.9).double()
        nearest = centroids.similarities(tokens).argmax(-1)
        distance = centroids.distance(tokens, nearest, valid)
        centroids.follow(tokens, nearest, valid)
        found.append((distance, centroids.sums, centroids.counts))
    for x, y in zip(*found, strict=True):
        assert error(x, y) <= 1e-12


def test_training_moves_centroids_after_the_pass_and_evaluation_does_not():
    q, k, v = inputs("NS")
    attention = build("NS", momentum=0.5)
    before, out = attention.centroids.sums, attention(q, k, v)
    assert attention.centroids.sums is before
    assert attention.auxiliary_loss() is None
    assert torch.equal(attention.train()(q, k, v), out)
    assert not torch.equal(attention.centroids.sums, before)
    assert attention.centroids.means(q.dtype).isfinite().all()


def test_the_commitment_draws_queries_and_keys_to_their_centroids():
    q, k, v = (x.requires_grad_() for x in inputs("NC"))
    attention = build("NC", commitment=1.0).train()
    attention(q, k, v)
    loss = attention.auxiliary_loss()
    want = 0.0
    means = build("NC").centroids.means(q.dtype)
    for x in (standardised(q), standardised(k)):
        nearest = torch.einsum("bhld,hcd->bhlc", x, means).argmax(-1)
        own = torch.stack([means[h][nearest[:, h]] for h in range(3)], 1)
        want = want + (x - own).square().mean()
    assert loss.item() == pytest.approx(want.item(), rel=1e-12)
    gradients = torch.autograd.grad(loss, [q, k])
    step = [x - 1e-3 * g / g.norm() for x, g in zip((q, k), gradients, strict=True)]
    again = build("NC", commitment=1.0).train()
    again(*step, v)
    assert again.auxiliary_loss() < loss


def test_no_gradient_goes_through_the_choice():
    q, _, _ = inputs("NS")
    attention = build("NS")
    assert not list(attention.parameters())
    assert not attention.centroids.similarities(q.requires_grad_()).requires_grad


def test_the_preset_of_the_paper_shares_queries_and_keys():
    paper = cab.attention("routing", pattern="CS", heads=2, head_dim=8, preset="paper").eval()
    q, k, v = draw(*[(1, 2, 40, 8)] * 3, dtype=torch.float32)
    assert torch.equal(paper(q, k, v), paper(torch.zeros_like(q), k, v))
    assert paper._factor(8) == pytest.approx(8**0.5)
