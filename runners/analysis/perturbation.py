"""How much the loss rises when the queries of a slot are disturbed.

After Attention Meets Perturbations (Kitada and Iyatomi 2021, arXiv 2009.12064), which disturbs the
scores of attention: adversarially, along the normalised gradient of the loss, and at random with
the same norm. Here the queries are disturbed, which every mechanism has, and which moves the scores
q·k alike: q_i becomes q_i + eps |q_i| r_i with unit vectors r_i, in all slots at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cab import Attention, seeds
from runners.analysis.calls import Change, changed_queries

SIZES = (0.1, 0.5)
"""eps: sizes of the disturbance over that of the query"""


def loss_rises(loss: Callable[[], Tensor], modules: Sequence[Attention]) -> dict[str, float]:
    """``loss_rise_adversarial_0.5`` and so on: loss under the disturbance minus the loss without.

    Args:
        loss: computes the loss of one fixed batch, in eval mode.
        modules: the slots whose queries are disturbed, all together.
    """
    with torch.enable_grad():
        value, gradients = query_gradients(loss, modules)
    clean = value.item()
    generator = seeds.generator(0, "analysis", "disturbance")
    noise = {name: torch.randn(g.shape, generator=generator).to(g) for name, g in gradients.items()}
    rises = {}
    with torch.no_grad():
        for kind, directions in (("adversarial", gradients), ("random", noise)):
            for size in SIZES:
                with changed_queries(modules, disturbance(directions, size)):
                    rises[f"loss_rise_{kind}_{size:g}"] = loss().item() - clean
    return rises


def query_gradients(
    loss: Callable[[], Tensor], modules: Sequence[Attention], keep: bool = False
) -> tuple[Tensor, dict[int, Tensor]]:
    """The loss, and by the id of each module its gradient by the module's queries.

    Args:
        loss: computes it.
        modules: the slots.
        keep: whether the loss can still be differentiated afterwards.
    """
    leaves: dict[int, Tensor] = {}

    def tap(module: Attention, q: Tensor, k: Tensor, v: Tensor, context: object) -> Tensor:
        # Added, not put in the queries' place: the gradients of earlier slots pass through.
        leaf = torch.zeros_like(q, requires_grad=True)
        leaves.setdefault(id(module), leaf)
        return q + leaves[id(module)] if leaves[id(module)].shape == q.shape else q

    with changed_queries(modules, tap):
        value = loss()
    names, taps = list(leaves), list(leaves.values())
    found: tuple[Tensor | None, ...] = (None,) * len(taps)
    if value.requires_grad:  # not so where no slot reads its queries and nothing is trained
        found = torch.autograd.grad(value, taps, retain_graph=keep, allow_unused=True)
    gradients = {
        name: torch.zeros_like(tap) if gradient is None else gradient
        for name, tap, gradient in zip(names, taps, found, strict=True)
    }
    return value, gradients


def disturbance(directions: dict[int, Tensor], size: float) -> Change:
    """q_i to q_i + size |q_i| r_i, r_i along the direction of its module."""

    def change(module: Attention, q: Tensor, k: Tensor, v: Tensor, context: object) -> Tensor:
        direction = directions.get(id(module))
        if direction is None or direction.shape != q.shape:
            return q  # a later call of another length is left alone
        unit = direction / direction.norm(dim=-1, keepdim=True).clamp(min=1e-20)
        return q + size * q.norm(dim=-1, keepdim=True) * unit

    return change
