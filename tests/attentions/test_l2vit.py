"""L2ViT: dense forms of both layers, the local concentration, batch statistics."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attentions.shared.masks import visible
from cab import AttentionContext, attention
from cab.errors import OptionError
from tests.attentions.cases import draw, error, gradients, module, qkv

PATTERNS = ["NS", "CS", "NC", "CC"]


def tokens(pattern, length=19):
    return qkv(13 if pattern.endswith("C") else length, length)


def without_convolutions(pattern, **options):
    linear = module("l2vit", pattern, form="linear", **options)
    if linear.local is not None:
        linear.local.taps.data.zero_()
        linear.local.biases.data.zero_()
    return linear


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("length", [1, 19, 150])
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_linear_layers_are_the_dense_formula_with_its_floor(pattern, length, scale):
    q, k, v = tokens(pattern, length)
    q, k = scale * q, scale * k
    linear = without_convolutions(pattern)
    assert error(linear.factor, torch.full_like(linear.factor, 5**-0.5)) <= 1e-7
    (grad,) = draw(q.shape, seed=1)

    def dense(q, k, v):
        weights = q.relu() @ k.relu().mT
        mask = visible(linear.pattern, q.shape[2], length, None)
        weights = weights if mask is None else weights * mask
        return linear.factor * (weights @ v) / weights.sum(-1, keepdim=True).clamp(min=100)

    got, found = gradients(linear, (q, k, v), grad)
    want, slopes = gradients(dense, (q, k, v), grad)
    assert error(got, want) <= 1e-12
    assert all(error(x, y) <= 1e-10 for x, y in zip(found, slopes, strict=True))
    if scale == 1 and length == 19:
        assert error(without_convolutions(pattern, floor=0.0)(q, k, v), want) > 1e-3


@pytest.mark.parametrize("pattern", ["NS", "CS"])
@pytest.mark.parametrize("length", [1, 7, 8, 19, 150])
@pytest.mark.parametrize("window", [1, 8, 64])
def test_windowed_layers_are_dense_softmax_within_blocks(pattern, length, window):
    q, k, v = tokens(pattern, length)
    windowed = module("l2vit", pattern, window=window)
    block = torch.arange(length) // window
    seen = block[:, None] == block
    seen = seen.tril() if pattern == "CS" else seen
    (grad,) = draw(q.shape, seed=1)

    def dense(q, k, v):
        scores = (q @ k.mT / 5**0.5).masked_fill(~seen, -torch.inf)
        return scores.softmax(-1) @ v

    got, found = gradients(windowed, (q, k, v), grad)
    want, slopes = gradients(dense, (q, k, v), grad)
    assert error(got, want) <= 1e-12
    assert all(error(x, y) <= 1e-11 for x, y in zip(found, slopes, strict=True))


@pytest.mark.parametrize("length_q", [1, 3, 9, 69])
def test_the_last_queries_of_a_windowed_layer(length_q):
    q, k, v = qkv(70, 70)
    windowed = module("l2vit", "CS", window=8)
    whole = windowed(q, k, v)
    assert error(windowed(q[:, :, -length_q:], k, v), whole[:, :, -length_q:]) <= 1e-12
    with pytest.raises(NotImplementedError, match="as many queries"):
        module("l2vit", "CS", form="linear")(q[:, :, 1:], k, v)


@pytest.mark.parametrize("causal", [False, True])
def test_the_local_concentration_is_built_from_torch_layers(causal):
    q, k, v = qkv()
    pattern = "CS" if causal else "NS"
    linear = module("l2vit", pattern, form="linear", floor=0.0)
    plain = without_convolutions(pattern, floor=0.0)
    for name, x in linear.local.named_parameters():
        x.data.add_(draw(x.shape, seed=len(name))[0])
    linear.local.variance.fill_(0.7)
    linear.local.mean.fill_(0.2)
    x = plain(q, k, v)
    tokens = x.transpose(1, 2).flatten(2)
    reach = (6, 0) if causal else (3, 3)
    hidden = F.layer_norm(tokens, (15,), linear.local.norm.weight, linear.local.norm.bias).mT
    taps, biases = linear.local.taps[:, :, None], linear.local.biases
    hidden = F.gelu(F.conv1d(F.pad(hidden, reach), taps[0], biases[0], groups=15))
    between = linear.local.between
    if causal:
        hidden = F.layer_norm(hidden.mT, (15,), between.weight, between.bias).mT
    else:
        norm = nn.BatchNorm1d(15).double().eval()
        norm.weight.data, norm.bias.data = between.weight.data, between.bias.data
        norm.running_mean.fill_(0.2)
        norm.running_var.fill_(0.7)
        hidden = norm(hidden)
    local = F.conv1d(F.pad(hidden, reach), taps[1], biases[1], groups=15).mT
    want = x + local.unflatten(2, (3, 5)).transpose(1, 2)
    assert error(linear(q, k, v), want) <= 1e-6  # statistics in float32 literals


def test_batch_statistics_are_those_of_valid_tokens():
    local = module("l2vit", "NS", form="linear").local.train()
    (x,) = draw((3, 11, 15), seed=4)
    mask = torch.ones(3, 11, dtype=torch.bool)
    mask[1, 4:] = mask[0, 2] = False
    norm = nn.BatchNorm1d(15).double().train()
    for _ in range(2):
        want = norm(x[mask])
        got = local.normed(x, mask, update=True)
    assert error(got[mask], want) <= 1e-12
    assert error(local.mean, norm.running_mean) <= 1e-12
    assert error(local.variance, norm.running_var) <= 1e-12
    before = local.mean.clone()
    local.normed(x, torch.zeros_like(mask), update=True)
    local.eval().normed(x, mask, update=False)
    assert torch.equal(local.mean, before)


def test_evaluation_counts_nothing_and_a_copy_evaluates_alike():
    q, k, v = qkv()
    linear = module("l2vit", "NS", form="linear").train()
    linear(q, k, v)
    state = {name: x.clone() for name, x in linear.state_dict().items()}
    assert state["local.mean"].any()
    linear.reference(q, k, v)
    out = linear.eval()(q, k, v)
    assert all(torch.equal(x, state[name]) for name, x in linear.state_dict().items())
    other = module("l2vit", "NS", form="linear")
    other.load_state_dict(state)
    assert torch.equal(other(q, k, v), out)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("form", ["window", "linear"])
def test_masks_and_rows_without_keys(pattern, form):
    q, k, v = tokens(pattern)
    mask = torch.ones(2, 19, dtype=torch.bool)
    mask[0, [0, 1, 7, 18]] = False
    mask[1] = False
    both = module("l2vit", pattern, form=form, window=4, floor=1.0)
    context = AttentionContext(None if pattern.endswith("C") else mask, mask)
    got = both(q, k, v, context)
    assert error(got, both.reference(q, k, v, context)) <= 1e-12
    assert not got[1].any()
    assert got[0, :, 8].all()


def test_padding_behind_a_sequence_is_the_sequence_alone():
    q, k, v = qkv()
    mask = torch.arange(19) < torch.tensor([[19], [11]])
    for form in ("window", "linear"):
        both = module("l2vit", "NS", form=form, window=4)
        got = both(q, k, v, AttentionContext(mask, mask))
        alone = both(*(x[1:, :, :11] for x in (q, k, v)))
        assert error(got[1:, :, :11], alone) <= 1e-12


def test_layers_alternate():
    spec = {"pattern": "causal-self", "heads": 3, "head_dim": 5, "layers": 4}
    layers = [attention("l2vit", **spec, layer_index=i) for i in range(4)]
    assert [x.blocks is not None for x in layers] == [True, False, True, False]
    spec["pattern"] = "causal-cross"
    assert attention("l2vit", **spec).blocks is None
    with pytest.raises(OptionError, match="form"):
        attention("l2vit", **spec, form="odd")
