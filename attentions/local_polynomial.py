"""Local polynomial attention of order 2: the next member after Local Linear Attention.

Softmax attention fits a constant around each query, Local Linear Attention a line; the
test-time-regression view (Wang et al. 2025, arXiv 2501.12352) goes on to polynomials. With
f(z) = [z, vec zz^T]:

    min over b, W of  sum_j p_ij |v_j - b - W f(k_j - q_i)|^2 + ridge |W|^2,   o_i = b

With quadratic terms in all dimensions of a head that is D + D (D + 1) / 2 regressors, and a cost
that grows with the fourth power of D: for small heads only. So the entry gives them to the leading
dimensions of a head alone, and lets the projections learn what to put there.

The fast path computes in float64, whatever the inputs are in. Second moments of quadratic terms are
fourth powers of the keys, their spread is what is left of a difference of two such, and a ridge
around the query is, in coordinates that all rows share, as ill-conditioned as the distance squared.
Together that is the sixth power of the inputs' scale: in float32 no digit is left at 8, in float64
seven are at 64.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attentions.lla.basis import basis_of
from attentions.lla.centre import centre_of
from attentions.lla.cholesky import CholeskySolver
from attentions.lla.reference import weighted_ridge_regression
from attentions.lla.regression import Settings, local_regression
from attentions.lla.ridge import RidgeParameter
from attentions.shared.cache import KeyValueCache
from attentions.shared.exact import exact_softmax
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

_MAX_REGRESSORS = 152
"""Those of all quadratic terms in 16 dimensions."""


@register_attention(
    AttentionInfo(
        id="local-polynomial",
        family=Family.REGRESSION,
        title="Local polynomial attention (order 2)",
        formula="o_i = b of the p_ij-weighted ridge fit v_j ~ b + W [z, zz^T], z = k_j - q_i",
        patterns={
            Pattern.CAUSAL_SELF: Grade.ADAPTED,
            Pattern.NONCAUSAL_SELF: Grade.ADAPTED,
            Pattern.NONCAUSAL_CROSS: Grade.ADAPTED,
            Pattern.CAUSAL_CROSS: Grade.ADAPTED,
        },
        time="L^2 D^2",
        memory="L D^2",
        paper="Wang et al., Test-time regression: a unifying framework for designing sequence "
        "models with associative memory",
        year=2025,
        url="https://arxiv.org/abs/2501.12352",
        options=(
            Option("ridge", 1.0, "ridge at the start, relative to a row's weight", positive=True),
            Option("learn_ridge", True, "train the ridge, one positive number per head"),
            Option("curved", 4, "leading dimensions with quadratic terms; 0 for all", least=0),
        ),
    )
)
class LocalPolynomialAttention(KeyValueCache):
    """Local quadratic regression of the values on the keys, exact solve.

    Adapted: quadratic terms in the first ``curved`` dimensions of a head; 0 gives them to all, as
    the paper's formula has it.
    """

    def __init__(
        self, spec: AttentionSpec, ridge: float = 1.0, learn_ridge: bool = True, curved: int = 4
    ) -> None:
        super().__init__(spec)
        self.curved = min(curved or spec.head_dim, spec.head_dim)
        regressors = spec.head_dim + self.curved * (self.curved + 1) // 2
        if regressors > _MAX_REGRESSORS:
            raise NotImplementedError(
                f"quadratic terms in {self.curved} of {spec.head_dim} dimensions are {regressors} "
                f"regressors, and a row's system has their square: at most {_MAX_REGRESSORS} are "
                "served; give the option curved a smaller number"
            )
        self.penalty = RidgeParameter(spec.heads, ridge, learn=learn_ridge)
        self.basis = basis_of(spec.head_dim, self.curved)
        self.scale = spec.head_dim**-0.5

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computes in float64."""
        key_mask = None if context is None else context.key_mask
        if key_mask is not None:
            key_mask = key_mask.repeat_interleave(q.shape[1], dim=0)
        work = torch.float64
        queries, keys = q.to(work).flatten(0, 1), k.to(work).flatten(0, 1)
        centre = centre_of(keys, key_mask)
        at, keys = queries - centre, keys - centre
        out = local_regression(
            queries,
            keys,
            self.basis.lift(at),
            self.basis.lift(keys),
            v.to(work).flatten(0, 1),
            self.penalty().to(work).repeat(q.shape[0]),
            at,
            Settings(
                key_mask,
                self.scale,
                self.pattern is Pattern.CAUSAL_SELF,
                CholeskySolver,
                self.basis.size**2,
                self.basis,
            ),
        )
        return out.unflatten(0, q.shape[:2]).to(v.dtype)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """One weighted ridge regression per query, on [z, vec zz^T] of the curved dimensions."""
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        z = k[..., None, :, :] - q[..., :, None, :]
        curved = z[..., : self.curved]
        square = (curved[..., :, None] * curved[..., None, :]).flatten(-2)
        p = exact_softmax(q, k, mask, self.scale)
        regressors = torch.cat([z, square], dim=-1)
        return weighted_ridge_regression(regressors, p, v, self.penalty().to(q.dtype))

    def flops(self, shape: AttentionShape) -> float:
        """Leading terms: moments of the monomials, products with the regressors, the solves."""
        size, dv = self.basis.size, shape.value_dim
        rows = shape.batch * shape.heads * shape.length_q
        pairs = rows * shape.length_k * (0.5 if self.pattern is Pattern.CAUSAL_SELF else 1.0)
        per_pair = 2 * self.basis.products + 2 * size + 2 * shape.head_dim + 2 * dv
        return pairs * per_pair + rows * (size**3 / 3 + 2 * size**2)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The ridge is not decayed."""
        return self.penalty.parameter_groups()
