"""Readouts: pooling by the mean and by learned queries, and the encoder that carries both."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from cab import Attention, Pattern, Slots
from tasks.backbones.pooled_encoder import PooledEncoder, TokenClassifier, valid_tokens
from tasks.backbones.readout import EfficientProbing, MeanPooling, masked_mean


def tokens(batch: int = 3, length: int = 7, dim: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, length, dim, generator=generator, dtype=torch.float64)


def probe(queries: int, dim: int = 12, classes: int = 5) -> EfficientProbing:
    torch.manual_seed(1)
    return EfficientProbing(dim, classes, queries).double()


def encoder(attention: type[Attention] = SoftmaxAttention) -> PooledEncoder:
    torch.manual_seed(0)
    slots = Slots(Pattern.NONCAUSAL_SELF, attention, SoftmaxAttention)
    return PooledEncoder(slots, dim=16, heads=2, layers=2, length=32, classes=4)


def test_the_mean_counts_valid_tokens_only() -> None:
    x = tokens(batch=2)
    mask = torch.tensor([[True] * 3 + [False] * 4, [False] * 7])
    pooled = masked_mean(x, mask)
    torch.testing.assert_close(pooled[0], x[0, :3].mean(0))
    assert not pooled[1].any()
    torch.testing.assert_close(masked_mean(x), x.mean(1))
    head = MeanPooling(12, 5).double()
    torch.testing.assert_close(head(x), head.classifier(x.mean(1)))


def test_one_query_of_zeros_is_the_mean_of_the_values() -> None:
    head, x = probe(queries=1), tokens()
    torch.nn.init.zeros_(head.queries)
    torch.testing.assert_close(head.pool(x), head.value(x).mean(1))
    mask = valid_tokens(torch.tensor([2, 5, 7]), 7)
    torch.testing.assert_close(head.pool(x, mask), masked_mean(head.value(x), mask))


def test_probing_is_cross_attention_without_projections_of_queries_and_keys() -> None:
    """M heads of full width with W_q = W_k = I; head m keeps its own slice of the values."""
    head, x = probe(queries=4), tokens()
    mask = valid_tokens(torch.tensor([2, 5, 7]), 7)
    torch.nn.init.normal_(head.queries)
    q = head.queries[None, :, None].expand(3, -1, -1, -1)
    k = x[:, None].expand(-1, 4, -1, -1)
    own = torch.block_diag(*[torch.ones(1, 3)] * 4).double()
    v = head.value(x)[:, None] * own[:, None]
    seen = mask[:, None, None].expand(-1, 4, 1, -1)
    heads = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    torch.testing.assert_close(head.pool(x, mask), heads.sum(1)[:, 0])


def test_one_slice_by_hand() -> None:
    head, x = probe(queries=2), tokens(batch=1)
    weights = torch.softmax(x[0] @ head.queries[1] / math.sqrt(12), dim=0)
    expected = weights @ (x[0] @ head.value.weight.T)[:, 6:]
    torch.testing.assert_close(head.pool(x)[0, 6:], expected)


def test_what_follows_the_pooling() -> None:
    head, x = probe(queries=3), tokens(batch=8)
    pooled = head.pool(x)
    standard = (pooled - pooled.mean(0)) / (pooled.var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(head(x), head.classifier(standard))
    assert not list(head.norm.parameters())
    assert sum(p.numel() for p in head.parameters()) == 3 * 12 + 12**2 + 12 * 5 + 5


def test_masked_tokens_have_no_effect() -> None:
    head, x = probe(queries=3).eval(), tokens()
    mask = valid_tokens(torch.tensor([4, 4, 4]), 7)
    torch.testing.assert_close(head(x, mask), head(x[:, :4]))


def test_queries_divide_the_width() -> None:
    with pytest.raises(ValueError, match="divisible"):
        EfficientProbing(12, 5, queries=5)


def test_the_probe_does_not_train_the_encoder() -> None:
    model, x = encoder(), tokens(dim=16).float()
    model(x).probe.square().sum().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    assert reached == {name for name, _ in model.probe.named_parameters(prefix="probe")}
    model.zero_grad()
    model(x).mean.square().sum().backward()
    assert model.probe.queries.grad is None
    assert model.layers[0].attention.value.weight.grad is not None


def test_padding_does_not_change_a_row() -> None:
    torch.manual_seed(0)
    slots = Slots(Pattern.NONCAUSAL_SELF, SoftmaxAttention, SoftmaxAttention)
    sizes = {"dim": 16, "heads": 2, "layers": 2}
    model = TokenClassifier(slots, tokens=9, classes=4, length=12, **sizes).eval()
    ids = torch.randint(9, (2, 12), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([5, 12])
    padded = model(ids, valid_tokens(lengths, 12))
    for either, alone in zip(padded, model(ids[:1, :5]), strict=True):
        torch.testing.assert_close(either[:1], alone, atol=1e-5, rtol=1e-4)


def test_without_attention_mean_pooling_is_a_sum_over_tokens() -> None:
    model, x = encoder(NoAttention).eval(), tokens(dim=16).float()
    alone = torch.stack([model(x[:, i : i + 1]).mean for i in range(x.shape[1])])
    torch.testing.assert_close(model(x).mean, alone.mean(0))
    attended = encoder().eval()
    alone = torch.stack([attended(x[:, i : i + 1]).mean for i in range(x.shape[1])])
    assert not torch.allclose(attended(x).mean, alone.mean(0), atol=1e-3)
