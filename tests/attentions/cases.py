"""Inputs, modules and error measures of the mechanisms' tests, in float64."""

import torch

import cab


def draw(*shapes, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes]


def qkv(length_q=19, length_k=19, dim=5, seed=0):
    return draw((2, 3, length_q, dim), (2, 3, length_k, dim), (2, 3, length_k, dim), seed=seed)


def module(name, pattern, dim=5, **options):
    return cab.attention(name, pattern=pattern, heads=3, head_dim=dim, **options).double().eval()


def error(got, want):
    """Relative, in the norm of the whole tensor; absolute where it is nearly zero."""
    assert torch.isfinite(got).all()
    return ((got.double() - want).norm() / want.norm().clamp(min=1.0)).item()


def gradients(function, leaves, gradient):
    """Output and gradients of leaves; those that need one in the leaves' own dtype."""
    leaves = [x.detach().clone().requires_grad_() for x in leaves]
    out = function(*leaves)
    return out, torch.autograd.grad(out, leaves, gradient.to(out.dtype))
