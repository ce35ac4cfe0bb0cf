"""A bare function of q, k and v, held to what its masks and patterns mean."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cab import AttentionContext, AttentionSpec, Pattern
from cab.attention_contract import infer_attention_info
from cab.checks import run_checks
from cab.errors import RegistrationError
from cab.function_attention import attention_of_function
from cab.registries import ATTENTIONS
from tests.contract.share import share_of


def softmax(q, k, v, is_causal=False):
    return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)


def class_of(function):
    """With the record that a registry infers."""
    made = attention_of_function(function, function.__name__)
    made.info = infer_attention_info(made)
    return made


def built(function, pattern):
    return class_of(function)(AttentionSpec(pattern, 2, 8))


def drawn(length_q, length_k, batch=3):
    generator = torch.Generator().manual_seed(0)
    shapes = ((batch, 2, n, 8) for n in (length_q, length_k, length_k))
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("pattern", Pattern)
def test_it_is_the_function_where_nothing_is_masked(pattern):
    q, k, v = drawn(9, 13 if pattern.cross else 9)
    causal = pattern is Pattern.CAUSAL_SELF
    out = built(softmax, pattern)(q, k, v, AttentionContext())
    torch.testing.assert_close(out, softmax(q, k, v, causal))


@pytest.mark.parametrize("pattern", Pattern)
def test_a_masked_key_is_removed_in_its_own_row(pattern):
    q, k, v = drawn(9, 13 if pattern.cross else 9)
    mask = torch.rand(k.shape[0], k.shape[-2], generator=torch.Generator().manual_seed(1)) < 0.6
    mask[0], mask[1] = False, True
    own = None if pattern.cross else mask
    out = built(softmax, pattern)(q, k, v, AttentionContext(query_mask=own, key_mask=mask))
    assert not out[0].any()
    for row in (1, 2):
        kept = mask[row].nonzero().flatten()
        queries = slice(None) if pattern.cross else kept
        parts = (x[row : row + 1, :, places] for x, places in ((q, queries), (k, kept), (v, kept)))
        want = softmax(*parts, pattern is Pattern.CAUSAL_SELF)
        torch.testing.assert_close(out[row : row + 1, :, queries], want)


@pytest.mark.parametrize("pattern", [Pattern.CAUSAL_SELF, Pattern.NONCAUSAL_CROSS])
def test_one_that_knows_causality_keeps_the_contract(pattern):
    assert not run_checks(class_of(softmax), pattern, {}, seed=0, share=share_of(pattern))


def test_one_that_does_not_cannot_hold_causal_self_attention():
    def blind(q, k, v):
        return F.scaled_dot_product_attention(q, k, v)

    assert "no leak" in run_checks(class_of(blind), Pattern.CAUSAL_SELF, {}, seed=0, share=(0, 3))


def test_a_name_leads_to_one_class(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def my_mean(q, k, v):\n    return v.mean(-2, keepdim=True).expand_as(q)\n")
    entry = ATTENTIONS.resolve(f"{path}:my_mean")
    assert (entry.id, entry.target) == ("my-mean", f"{path}:my_mean")
    assert ATTENTIONS.load(entry) is ATTENTIONS.class_at(entry.target)


@pytest.mark.parametrize(
    ("made", "complaint"),
    [(lambda: nn.Linear(2, 2), "has state"), (lambda: lambda q: q, "cannot be called")],
)
def test_what_is_no_such_function_is_refused(made, complaint):
    with pytest.raises(RegistrationError, match=complaint):
        attention_of_function(made(), "it")
