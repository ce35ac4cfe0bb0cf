"""Nyström attention: where it must be softmax, and its two other forms."""

import pytest
import torch

import cab
from attentions.nystromformer import NystromAttention, iterative_pinv
from benchmarks.attentions.plain import nystromformer as plain
from cab.checks import CHECKS, Case
from cab.patterns import Pattern
from tests.attentions.cases import draw, error, gradients, module, qkv
from tests.contract.share import share_of


def masks(*counts, length):
    """(B, L), True at so many tokens of each row, scattered."""
    generator = torch.Generator().manual_seed(3)
    mask = torch.zeros(len(counts), length, dtype=torch.bool)
    for row, count in enumerate(counts):
        mask[row, torch.randperm(length, generator=generator)[:count]] = True
    return mask


@pytest.mark.parametrize("length_q", [1, 7, 19])
@pytest.mark.parametrize("length_k", [1, 15, 16])
def test_as_many_landmarks_as_keys_are_softmax(length_q, length_k):
    q, k, v = qkv(length_q, length_k)
    want = module("softmax-exact", "NC")(q, k, v)
    assert error(module("nystromformer", "NC")(q, k, v), want) <= 1e-14
    if length_q == length_k:
        assert error(module("nystromformer", "NS")(q, k, v), want) <= 1e-14


@pytest.mark.parametrize("shape", [(9, 9), (4, 9), (9, 4), (1, 5), (5, 1)])
def test_pseudo_inverse(shape):
    (a,) = draw((3, 2, *shape))
    a = (3 * a).softmax(-1)
    want = torch.linalg.pinv(a)
    assert error(iterative_pinv(a, 40), want) <= 1e-9
    zeros = torch.zeros(1, 1, *shape).double()
    assert torch.equal(iterative_pinv(zeros, 6), zeros.mT)
    one, per_matrix = iterative_pinv(a[:1, :1], 6), iterative_pinv(a, 6)[:1, :1]
    assert torch.equal(one, per_matrix)


def test_pseudo_inverse_of_a_softmax_matrix_gives_it_back():
    q, k, _ = qkv()
    a = (q @ k.mT).softmax(-1)
    assert error(a @ iterative_pinv(a, 60) @ a, a) <= 1e-9
    assert error(a @ iterative_pinv(a, 6) @ a, a) > 1e-4


def test_few_queries_of_many_keys_are_softmax_once_the_inverse_converges():
    q, k, v = qkv(5, 40)
    want = module("softmax-exact", "NC")(q, k, v)
    assert error(module("nystromformer", "NC", iterations=40)(q, k, v), want) <= 1e-9


def test_equal_keys_give_the_mean_of_the_values():
    q, k, v = qkv(40, 40)
    k = k[:, :, :1].expand_as(k)
    want = v.mean(-2, keepdim=True).expand_as(v)
    for pattern in ("NS", "NC"):
        assert error(module("nystromformer", pattern)(q, k, v), want) <= 1e-13


@pytest.mark.parametrize("conv", [0, 3])
@pytest.mark.parametrize("length", [1, 15, 16, 17, 32, 45])
def test_equals_the_plain_form(length, conv):
    q, k, v = qkv(length, length)
    attention = module("nystromformer", "NS", conv=conv)
    assert error(attention(q, k, v), plain.attend(attention, q, k, v)) <= 1e-10


@pytest.mark.parametrize("lengths", [(9, 33), (33, 20), (40, 7)])
def test_equals_the_plain_form_across_sequences(lengths):
    q, k, v = qkv(*lengths)
    attention = module("nystromformer", "NC", iterations=4)
    assert error(attention(q, k, v), plain.attend(attention, q, k, v)) <= 1e-10


@pytest.mark.parametrize("length", [19, 35])
@pytest.mark.parametrize("pattern", ["NS", "NC"])
def test_rows_of_different_lengths_are_as_if_alone(pattern, length):
    counts = (length, 17, 16, 5, 1, 0)
    key_mask = masks(*counts, length=length)
    q, k, v = draw(*[(6, 3, length, 5)] * 3)
    query_mask = key_mask if pattern == "NS" else masks(*reversed(counts), length=length)
    q = q.masked_fill(~query_mask[:, None, :, None], 1e30)
    k, v = (x.masked_fill(~key_mask[:, None, :, None], -1e30) for x in (k, v))
    attention = module("nystromformer", pattern)
    context = cab.AttentionContext(query_mask=query_mask, key_mask=key_mask)
    got = attention(q, k, v, context)
    for row in range(6):
        own = query_mask[row]
        if not own.any():
            continue
        kept = [
            x[row : row + 1, :, m] for x, m in ((q, own), (k, key_mask[row]), (v, key_mask[row]))
        ]
        places = cab.AttentionContext(
            query_positions=own.nonzero()[:, 0], key_positions=key_mask[row].nonzero()[:, 0]
        )
        if key_mask[row].any():
            assert error(got[row : row + 1, :, own], attention(*kept, places)) <= 1e-10
        else:
            assert got[row, :, own].abs().max() == 0


@pytest.mark.parametrize("lengths", [(35, 35), (34, 21), (5, 21), (21, 5)])
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_are_those_of_the_reference(lengths, masked):
    pattern = "NS" if lengths[0] == lengths[1] else "NC"
    q, k, v, gradient = draw(
        *((4, 3, length, 5) for length in (lengths[0], lengths[1], lengths[1], lengths[0]))
    )
    context = cab.AttentionContext()
    if masked:
        counts = [min(count, lengths[1]) for count in (lengths[1] - 2, 18, 4, 0)]
        context.key_mask = masks(*counts, length=lengths[1])
        context.query_mask = masks(*([lengths[0] - 1] * 4), length=lengths[0])
        valid = context.key_mask if pattern == "NS" else context.query_mask
        gradient = gradient * valid[:, None, :, None]
    attention = module("nystromformer", pattern)
    got, grads = gradients(lambda *x: attention(*x, context), (q, k, v), gradient)
    want, want_grads = gradients(lambda *x: attention.reference(*x, context), (q, k, v), gradient)
    assert error(got, want) <= 1e-9
    for a, b in zip(grads, want_grads, strict=True):
        assert error(a, b) <= 1e-9


def test_gradients_by_differences():
    attention = module("nystromformer", "NC", dim=2, landmarks=3, iterations=2)
    leaves = draw((1, 1, 4, 2), (1, 1, 7, 2), (1, 1, 7, 2))
    assert torch.autograd.gradcheck(attention, [x.requires_grad_() for x in leaves])


@pytest.mark.parametrize("conv", [1, 3, 5])
def test_convolution_adds_neighbouring_values(conv):
    q, k, v = qkv(21, 21)
    attention = module("nystromformer", "NS", conv=conv)
    want = module("nystromformer", "NS")(q, k, v)
    for tap in range(conv):
        shifted = torch.zeros_like(v)
        for i in range(21):
            j = i + tap - conv // 2
            if 0 <= j < 21:
                shifted[:, :, i] = v[:, :, j]
        want = want + attention.kernel[:, 0, tap][..., None] * shifted
    assert error(attention(q, k, v), want) <= 1e-12
    assert sum(p.numel() for p in attention.parameters()) == 3 * conv
    assert not list(module("nystromformer", "NC", conv=conv).parameters())


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("options", [{"conv": 5}, {"landmarks": 40}, {"landmarks": 1}])
def test_contract_with_options(options, check):
    for pattern in (Pattern.NONCAUSAL_SELF, Pattern.NONCAUSAL_CROSS):
        share = share_of(pattern, options)
        CHECKS[check](Case(NystromAttention, pattern, options, share=share))


@pytest.mark.parametrize("options", [{"conv": 4}, {"landmarks": 0}])
def test_options_without_a_meaning(options):
    spec = cab.AttentionSpec(Pattern.NONCAUSAL_SELF, 2, 4)
    with pytest.raises(ValueError, match="must be"):
        NystromAttention(spec, **options)


@pytest.mark.parametrize("autocast", [False, True])
def test_low_precision_loses_only_that_of_the_inputs(autocast):
    rounded = [x.bfloat16() for x in draw(*[(2, 3, 200, 8)] * 3)]
    attention = module("nystromformer", "NS", dim=8)
    want = attention(*(x.double() for x in rounded))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        got = attention(*rounded)
    assert got.dtype == torch.bfloat16
    assert error(got, want) <= 2.0**-8


def test_keeps_nothing_of_both_lengths():
    q, k, v = (torch.randn(1, 2, 512, 16, requires_grad=True) for _ in range(3))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, id):
        module("nystromformer", "NS", dim=16).float()(q, k, v)
    assert max(kept) <= 2 * 512 * 16


def test_flops_grow_with_the_length():
    attention = module("nystromformer", "NS")
    short, long = (
        attention.flops(cab.AttentionShape(1, 3, length, length, 5, 5)) for length in (4096, 8192)
    )
    assert 1.9 < long / short < 2
