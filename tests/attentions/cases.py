"""Inputs, modules and error measures of the mechanisms' tests, in float64."""

import torch

from cab import AttentionSpec, Pattern
from cab.candidate import choose_candidate
from cab.standalone import SPEC_FIELDS


def draw(*shapes, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes]


def qkv(length_q=19, length_k=19, dim=5, seed=0):
    return draw((2, 3, length_q, dim), (2, 3, length_k, dim), (2, 3, length_k, dim), seed=seed)


def module(name, pattern, dim=5, **options):
    """Float64, in eval mode, and with no look at the shapes of its calls."""
    place = {field: options.pop(field) for field in SPEC_FIELDS if field in options}
    spec = AttentionSpec(Pattern.parse(pattern), 3, dim, **place)
    return choose_candidate(name, options).build(spec).double().eval()


def visible_keys(q, k, key_mask, causal):
    """(N, Lq, Lk), True where a query of (N, L, D) inputs sees a key."""
    n, length_q, length_k = q.shape[0], q.shape[1], k.shape[1]
    visible = torch.ones(n, length_q, length_k, dtype=torch.bool, device=q.device)
    if causal:
        visible = visible.tril(length_k - length_q)
    return visible if key_mask is None else visible & key_mask[:, None]


def error(got, want):
    """Relative, in the norm of the whole tensor; absolute where that is nearly zero."""
    assert torch.isfinite(got).all()
    return ((got.double() - want).norm() / want.norm().clamp(min=1.0)).item()


def gradients(function, inputs, gradient):
    """Output of a function and the gradients of its inputs for that of the output."""
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    out = function(*inputs)
    return out, torch.autograd.grad(out, inputs, gradient.to(out.dtype))
