"""What the tests of Local Linear Attention share: its definition, calls and inputs."""

import torch

from attentions.lla.reference import local_linear_regression
from attentions.lla.residual import ResidualMonitor
from attentions.lla.solvers import Budget, local_linear_attention
from tests.attentions.cases import draw, visible_keys

SOLVERS = ("cholesky", "cg")
TIGHT = Budget(iterations=300, tolerance=1e-13)


def definition(q, k, v, ridge, key_mask=None, *, scale, causal, form=local_linear_regression):
    """Of (N, L, D) inputs with a ridge each."""
    mask = visible_keys(q, k, key_mask, causal)
    return form(q[None], k[None], v[None], mask[None], ridge, scale)[0]


def attend(
    q, k, v, ridge, key_mask=None, *, scale, causal, solver="cholesky", budget=TIGHT, monitor=None
):
    monitor = monitor or ResidualMonitor("")
    return local_linear_attention(
        q, k, v, ridge, key_mask, scale=scale, causal=causal, solver=solver, budget=budget,
        monitor=monitor,
    )  # fmt: skip


def problem(length_q=19, length_k=23, dim=5, dim_v=4, n=3, seed=0, ridge=0.1):
    q, k, v = draw((n, length_q, dim), (n, length_k, dim), (n, length_k, dim_v), seed=seed)
    return q, k, v, torch.linspace(ridge, 2 * ridge, n, dtype=torch.float64)


def padding(n, length_k):
    """Scattered; the last sequence has no valid key, the one before it a single one."""
    mask = (torch.arange(length_k) % 3 != 1).repeat(n, 1)
    mask[-1] = False
    mask[-2, 1:] = False
    return mask
