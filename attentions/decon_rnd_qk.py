"""Queries and keys of random embeddings (Xue et al. 2025, arXiv 2510.11602, RndEmbQK).

    o_i = sum_{j<=i} p_ij v_j,   p_ij = softmax_j(q_i·k_j / sqrt(D)),   q_i = W_q z_i, k_j = W_k z_j

in every layer, where z is a sequence of fixed random embeddings, drawn once from a normal
distribution for every place, that has gone through the same layers as the tokens. Only values come
from the tokens. So the weights are functions of places alone, the same for every input; they are
learned, through the layers that z goes through. In the paper it loses much in all layers, and
little in every other one: that is the hybrid ``softmax:1,decon-rnd-qk:1``.

The module is softmax attention of the q and k that it is handed, and `wire` sees to where a model
takes them from: before each layer of a stack z goes through it, and what the projections make of z
stands in the place of what they make of the tokens. z begins as standard normal numbers, as the
embeddings of tokens do, in the place of embeddings and positions together; other mechanisms in the
stack, in a hybrid, attend within z as they do within tokens. It has no masks. The cost that is
measured is a slot's; that z goes along as one row more of a batch is not in it.

For this a layer must be a module that needs nothing but its tokens, and hand them to the next as
they are; a decoder that reads a source is refused, and so is a stack with anything between layers,
or with another mechanism that is wired into the model.
In a cross slot the keys are of a sequence that no layer has changed, so there is no form for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from attentions.shared.query_sources import stacks_of
from attentions.shared.second_stream import SecondStream
from attentions.softmax import SoftmaxAttention
from cab import Attention, AttentionInfo, Family, Grade, Pattern, Task, register_attention

_ABSENT = "the source of a cross slot goes through no layers"


@register_attention(
    AttentionInfo(
        id="decon-rnd-qk",
        family=Family.POSITIONAL,
        title="Softmax attention with queries and keys of random embeddings",
        formula="o_i = softmax_j(q_i·k_j / sqrt(D)) v_j, q_i = W_q z_i, k_j = W_k z_j, "
        "z: random embeddings of places after the same layers",
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
class DeconRndQK(SoftmaxAttention):
    """Softmax attention, with a second stream of random embeddings under its queries and keys."""

    @classmethod
    def wire(cls, model: nn.Module, slots: Sequence[Attention], task: Task) -> None:
        """Send random embeddings through every stack that holds one of its slots.

        Raises:
            NotImplementedError: the layers are no modules that need their tokens alone. In a
                forward pass: something stands between them.
        """
        for stack in stacks_of(model, slots):
            taking = [place for place in stack if isinstance(place.slot, cls)]
            if taking:
                SecondStream(model, stack, taking)
