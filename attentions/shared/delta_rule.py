"""The delta rule: what the state holds for a key is replaced, in part, by the new value.

    S_t = S' + beta_t k_t (v_t - S'^T k_t)^T,   S' = what a decay leaves of S_(t-1),   o_t = q_t S_t

one step of gradient descent on the square of v_t - S'^T k_t (Schlag et al. 2021, arXiv 2102.11174;
Yang et al. 2024, arXiv 2406.06484). Queries, keys and values pass SiLU, queries and keys are of
length one, and queries are divided by sqrt(D), as in the layers of that paper and its successors.
Those have a short convolution before it (``--conv 4`` here) and, later ones, a gate on outputs,
which are a slot's or backbone's matter here; what a head gives is RMS-normalised.

``beta`` reaches 1, or 2 with ``negative``: 1 - beta is then an eigenvalue down to -1 of what a
token does to the state, which tracking of states needs (Grazzi et al. 2024, arXiv 2411.12537).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from attentions.shared.gates import Gate, undecayed_parameters
from attentions.shared.layer_inputs import key_input
from attentions.shared.recurrence import RecurrentAttention, Writer
from attentions.shared.recurrent_scan import ScanCosts, Writes
from cab import AttentionContext, AttentionShape, AttentionSpec

_EPS = 1e-6


def unit(x: Tensor) -> Tensor:
    """Vectors (..., D) of length one; zero stays zero."""
    return x * (x.square().sum(-1, keepdim=True) + _EPS).rsqrt()


class DeltaWriter(Writer):
    """Keys, values and gates of a delta rule, with a decay or none."""

    def __init__(
        self, spec: AttentionSpec, name: str, decay: nn.Module | None, negative: bool
    ) -> None:
        super().__init__()
        self.name, self.decay = name, decay
        self.beta = Gate(spec, most=2.0 if negative else 1.0)

    def forward(self, k: Tensor, v: Tensor, context: AttentionContext | None) -> Writes:
        """See `Writer.forward`."""
        x = key_input(context, self.name, "gates")
        k, v, beta = unit(F.silu(k)), F.silu(v), self.beta(x).to(v.dtype)
        decay = None if self.decay is None else self.decay(x).to(v.dtype)
        return Writes(k, beta * v, decay, beta * k)

    def flops(self, shape: AttentionShape) -> float:
        """Of the gates' maps."""
        weights = sum(x.numel() for x in self.parameters() if x.ndim == 2)
        return 2.0 * shape.batch * shape.length_k * weights


class DeltaRule(RecurrentAttention):
    """Base of mechanisms whose queries are of length one, and whose writes erase."""

    costs = ScanCosts(erases=True)

    def reading(self, q: Tensor, k: Tensor | None) -> Tensor:
        """See `RecurrentAttention.reading`."""
        return unit(F.silu(q)) * q.shape[-1] ** -0.5

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Rates and first steps of decays are not decayed, as their authors train them."""
        return undecayed_parameters(self)
