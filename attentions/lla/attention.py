"""Local Linear Attention (Zuo et al. 2025, arXiv 2510.01450).

Softmax attention is local-constant (Nadaraya-Watson) regression of the values on the keys: it
averages the values of keys near the query. Local Linear Attention fits a *line* around each query
instead and reads it off at the query:

    min over b, W of  sum_j p_ij |v_j - b - W (k_j - q_i)|^2 + ridge |W|^2,   o_i = b
    p_ij = exp(q_i·k_j / sqrt(D)) / sum_l exp(q_i·k_l / sqrt(D))

which is the softmax output plus a slope times the query's distance from the attended mean key:

    o_i = vbar_i + Cov_i(v, k) (Cov_i(k, k) + ridge I)^-1 (q_i - kbar_i)

A large ridge gives softmax attention; values that are affine in the keys are reproduced exactly as
the ridge goes to zero. docs/lla.md derives the form, its gradient and the ways to solve it.
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor
from torch.nn import functional as F

from attentions.lla.decoding import decode_local_linear
from attentions.lla.reference import local_linear_regression
from attentions.lla.residual import ResidualMonitor
from attentions.lla.ridge import RidgeParameter
from attentions.lla.solvers import Budget, Solver, choose_solver, local_linear_attention
from attentions.shared.cache import KeyValueCache
from attentions.shared.masks import visible
from cab import (
    AttentionContext,
    AttentionInfo,
    AttentionShape,
    AttentionSpec,
    Family,
    Grade,
    Option,
    Pattern,
    register_attention,
)


@register_attention(
    AttentionInfo(
        id="lla",
        family=Family.REGRESSION,
        title="Local Linear Attention",
        formula="o_i = vbar_i + Cov_i(v,k) (Cov_i(k,k) + ridge I)^-1 (q_i - kbar_i)",
        patterns={
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_SELF: Grade.EXTENSION,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L^2 D^2",
        memory="L D^2",
        paper="Zuo et al., Local Linear Attention: An Optimal Interpolation of Linear and "
        "Softmax Attention For Test-Time Regression",
        year=2025,
        url="https://arxiv.org/abs/2510.01450",
        options=(
            Option("ridge", 1.0, "ridge at the start, relative to a row's weight", positive=True),
            Option("learn_ridge", True, "train the ridge, one positive number per head"),
            Option("scale", 1.0, "logits are scale q·k / sqrt(D)"),
            Option("qk_norm", False, "bring queries and keys to root mean square 1 first"),
            Option(
                "solver",
                "auto",
                "cholesky: exact; cg: matrix-free; triton: cg in CUDA kernels; auto: what fits",
                choices=("auto", "cholesky", "cg", "triton"),
            ),
            Option("iterations", 64, "of conjugate gradients, at most", positive=True),
            Option("tolerance", 1e-5, "relative residual at which they stop", positive=True),
        ),
    )
)
class LocalLinearAttention(KeyValueCache):
    """Local linear regression of the values on the keys."""

    def __init__(
        self,
        spec: AttentionSpec,
        ridge: float = 1.0,
        learn_ridge: bool = True,
        scale: float = 1.0,
        qk_norm: bool = False,
        solver: str = "auto",
        iterations: int = 64,
        tolerance: float = 1e-5,
    ) -> None:
        super().__init__(spec)
        self.penalty = RidgeParameter(spec.heads, ridge, learn=learn_ridge)
        self.start = ridge
        self.scale = scale * spec.head_dim**-0.5
        self.qk_norm = qk_norm
        self.solver = solver
        self.budget = Budget(iterations, tolerance)
        self.monitor = ResidualMonitor(
            "raise the options iterations or ridge, or use solver=cholesky, which is exact"
        )

    @property
    def ridge(self) -> Tensor:
        """(H,) positive."""
        return self.penalty()

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computes in float32 at least.

        Warns:
            ResidualWarning: conjugate gradients stopped short.
        """
        q, k = self._normalise(q, k)
        auto = self.solver == "auto"
        solver = choose_solver(q, v, self.start) if auto else cast("Solver", self.solver)
        out = local_linear_attention(
            q.flatten(0, 1),
            k.flatten(0, 1),
            v.flatten(0, 1),
            self.ridge.repeat(q.shape[0]),
            self._key_mask(q, context),
            scale=self.scale,
            causal=self.pattern is Pattern.CAUSAL_SELF,
            solver=solver,
            budget=self.budget,
            monitor=self.monitor,
        )
        return out.unflatten(0, q.shape[:2])

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """One weighted ridge regression per query."""
        q, k = self._normalise(q, k)
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        return local_linear_regression(q, k, v, mask, self.ridge.to(q.dtype), self.scale)

    def attend_once(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """One pass over the cache: moments of the keys and values, then one small solve."""
        q, k = self._normalise(q, k)
        out = decode_local_linear(
            q.flatten(0, 1),
            k.flatten(0, 1),
            v.flatten(0, 1),
            self.ridge.repeat(q.shape[0]),
            self._key_mask(q, context),
            scale=self.scale,
            kernels=self.solver in ("auto", "triton"),
        )
        return out.unflatten(0, q.shape[:2])

    def flops(self, shape: AttentionShape) -> float:
        """Leading terms of the exact path: second moments over the symmetric half, four products,
        the solves.
        """
        d, dv = shape.head_dim, shape.value_dim
        rows = shape.batch * shape.heads * shape.length_q
        pairs = rows * shape.length_k * (0.5 if self.pattern is Pattern.CAUSAL_SELF else 1.0)
        return pairs * (d * (d + 1) + 6 * d + 2 * dv) + rows * (d**3 / 3 + 2 * d**2)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The ridge is not decayed: decay would pull it to one fixed value."""
        return self.penalty.parameter_groups()

    def _normalise(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        if not self.qk_norm:
            return q, k
        width = (q.shape[-1],)
        return F.rms_norm(q, width), F.rms_norm(k, width)

    def _key_mask(self, q: Tensor, context: AttentionContext | None) -> Tensor | None:
        if context is None or context.key_mask is None:
            return None
        return context.key_mask.repeat_interleave(q.shape[1], dim=0)
