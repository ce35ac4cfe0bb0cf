"""The gradient of a gradient is right, or refused: never wrong without a word."""

import pytest
import torch

from attentions.shared.features import elu_features
from attentions.shared.first_order import SecondDerivativeError, first_derivatives_only
from cab import Attention
from tests.attentions.cases import draw, error
from tests.attentions.registered import build, call, claims


def penalty_gradients(function, inputs):
    """Gradients of a penalty on those of a sum, beside another path through the same inputs.

    The gradient that comes into a mechanism is then a constant: where torch's own
    ``once_differentiable`` leaves terms out.
    """
    leaves = [x.detach().clone().requires_grad_() for x in inputs.tensors()]
    out = function(*leaves, inputs.context)
    first = torch.autograd.grad(
        out.sum() + sum((x**3).sum() for x in leaves), leaves, create_graph=True
    )
    return torch.autograd.grad(sum(g.square().sum() for g in first), leaves)


def refusal(function, inputs):
    """What it says where it refuses, and otherwise an empty string."""
    try:
        penalty_gradients(function, inputs)
    except SecondDerivativeError as error:
        return str(error)
    except RuntimeError as error:
        if "is not implemented" not in str(error):  # how torch's fused kernels refuse
            raise
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("cls", "pattern"), claims(lambda cls, _: cls.reference is not Attention.reference)
)
def test_a_penalty_is_right_or_refused(cls, pattern):
    attention, inputs = build(cls, pattern), call(pattern, 9, 7)
    # What the refusal advises must work.
    want = penalty_gradients(attention.reference, inputs)
    assert all(x.isfinite().all() for x in want)
    if not refusal(attention, inputs):
        for x, y in zip(penalty_gradients(attention, inputs), want, strict=True):
            assert error(x, y) <= 1e-9


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("abc", "NS"),
        ("abc", "CS"),
        ("cosformer", "CS"),
        ("lara", "NS"),
        ("linear-elu", "NC"),
        ("lla", "CS"),
        ("local", "CS"),
        ("local-polynomial", "NS"),
        ("long-short", "NS"),
        ("nystromformer", "NS"),
        ("parallax", "CC"),
        ("performer", "NS"),
        ("s4d", "CS"),
    ],
)
def test_every_autograd_function_refuses(name, pattern):
    (parameter,) = [p for p in claims() if p.id == f"{name}-{pattern}"]
    cls, pattern = parameter.values
    # More tokens than landmarks, so that no short cut is taken.
    attention, inputs = build(cls, pattern), call(pattern)
    with pytest.raises(SecondDerivativeError, match="Call the module's `reference`"):
        penalty_gradients(attention, inputs)


def test_first_derivatives_with_a_graph_are_the_same():
    attention, inputs = (f(*claims()[0].values) for f in (build, lambda _, p: call(p)))
    (q,) = (x.detach().clone().requires_grad_() for x in inputs.tensors()[:1])
    out = attention(q, inputs.k, inputs.v, inputs.context).square().sum()
    (plain,) = torch.autograd.grad(out, q, retain_graph=True)
    (graph,) = torch.autograd.grad(out, q, create_graph=True)
    assert torch.equal(plain, graph)
    assert not plain.requires_grad


class _Cubed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @first_derivatives_only
    def backward(ctx, grad):
        return 3 * grad * ctx.saved_tensors[0] ** 2, None


def test_a_refusal_names_the_way_out_whatever_else_depends_on_the_input():
    (x,) = draw((4,))
    x.requires_grad_()
    for loss in (_Cubed.apply(x, None).sum(), (_Cubed.apply(x, None) ** 2 + x**2).sum()):
        (slope,) = torch.autograd.grad(loss, x, create_graph=True)
        penalty = slope.square().sum()
        with pytest.raises(SecondDerivativeError, match="first derivatives only"):
            penalty.backward(retain_graph=True)
        with pytest.raises(SecondDerivativeError, match="first derivatives only"):
            torch.autograd.grad(penalty, x)


def test_elu_features_have_derivatives_of_every_order():
    (x,) = draw((3, 5))
    assert torch.autograd.gradcheck(elu_features, x.requires_grad_())
    assert torch.autograd.gradgradcheck(elu_features, x)
