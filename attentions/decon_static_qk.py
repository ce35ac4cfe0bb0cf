"""Queries and keys of the embeddings (Xue et al. 2025, arXiv 2510.11602, StaticEmbQK).

    o_i = sum_{j<=i} p_ij v_j,   p_ij = softmax_j(q_i·k_j / sqrt(D)),   q_i = W_q e_i, k_j = W_k e_j

in every layer, where e are the embeddings of the tokens; only values come from the layer's input.
So which tokens attend to which is decided by the words themselves, and depth changes what is
carried. In the paper it loses much in all layers, and little in every other one: that is the hybrid
``softmax:1,decon-static-qk:1``.

The module is softmax attention of the q and k that it is handed, and `wire` sees to where a model
takes them from: the projections of every layer read what those of the first layer of their stack
read, the embeddings with their positions, normalised where the first layer normalises them. The
paper says nothing about a norm there. In layer 0 nothing is changed. In a cross slot the queries of
the first layer are no embeddings, so there is no form for it; and where layers differ in length or
width (a U-Net, distilling between layers) it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from attentions.shared.query_sources import stacks_of
from attentions.softmax import SoftmaxAttention
from cab import Attention, AttentionInfo, Family, Grade, Pattern, Task, register_attention

_ABSENT = "the queries of a first layer's cross slot are no embeddings"


@register_attention(
    AttentionInfo(
        id="decon-static-qk",
        family=Family.SOFTMAX,
        title="Softmax attention with queries and keys of the embeddings",
        formula="o_i = softmax_j(q_i·k_j / sqrt(D)) v_j, q_i = W_q e_i, k_j = W_k e_j, "
        "e: embeddings",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.EXTENSION,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
        },
        absent={Pattern.NONCAUSAL_CROSS: _ABSENT, Pattern.CAUSAL_CROSS: _ABSENT},
        time="L^2 D",
        memory="L",
        paper="Xue et al., Deconstructing Attention: Investigating Design Principles for Effective "
        "Language Modeling",
        year=2025,
        url="https://arxiv.org/abs/2510.11602",
    )
)
class DeconStaticQK(SoftmaxAttention):
    """Softmax attention, with a model's embeddings under its queries and keys."""

    @classmethod
    def wire(cls, model: nn.Module, slots: Sequence[Attention], task: Task) -> None:
        """Let the projections of its slots read what those of the first layer read.

        Raises:
            NotImplementedError: the backbone has no projections to find. In a forward pass: the
                layers differ in length or width.
        """
        for first, *rest in stacks_of(model, slots):
            for place in rest:
                if isinstance(place.slot, cls):
                    _read_from(first.query, place.query)
                    _read_from(first.key, place.key)


def _read_from(source: nn.Module, projection: nn.Module) -> None:
    """Let a projection take the input of another one, of the same forward pass."""
    held: list[Tensor] = []

    def keep(_: nn.Module, args: tuple[Any, ...]) -> None:
        held[:] = args[:1]

    def replaced(_: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor]:
        (x,) = args
        if not held or held[0].shape != x.shape:
            raise NotImplementedError("decon-static-qk needs layers of one length and width")
        return (held[0],)

    source.register_forward_pre_hook(keep)
    projection.register_forward_pre_hook(replaced)
