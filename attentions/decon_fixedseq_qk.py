"""Queries and keys of one fixed text (Xue et al. 2025, arXiv 2510.11602, FixedSeqQK).

    o_i = sum_{j<=i} p_ij v_j,   p_ij = softmax_j(q_i·k_j / sqrt(D)),   q_i = W_q z_i, k_j = W_k z_j

in every layer, where z are the states of one fixed text that goes through the same model, attending
within itself; only values come from the tokens. So the weights are the same for every input, as in
`decon-rnd-qk`, and are such as a real text has. In the paper it loses much in all layers, and
little in every other one: that is the hybrid ``softmax:1,decon-fixedseq-qk:1``.

The module is softmax attention of the q and k that it is handed, and `wire` sees to where a model
takes them from: before the tokens a fixed text of their length goes through the model, and what the
projections make of it stands in the place of what they make of the tokens. The paper's text are
the first 2048 tokens of a sample of FineWeb, in the place of which stands one fixed batch of the
task's own training data, as its batches have it, row after row. The cost that is measured is a
slot's; that the text goes along as one row more of a batch is not in it.

For this the model must be called with the ids of one sequence, (B, L), and need nothing else;
others are refused, and so are sequences longer than the text. The keys of a cross slot are another
sequence's, so there is no form for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from attentions.shared.fixed_text import FixedText
from attentions.shared.query_sources import stacks_of
from attentions.softmax import SoftmaxAttention
from cab import Attention, AttentionInfo, Family, Grade, Pattern, Task, register_attention

_ABSENT = "a fixed text has no source beside it"


@register_attention(
    AttentionInfo(
        id="decon-fixedseq-qk",
        family=Family.POSITIONAL,
        title="Softmax attention with queries and keys of a fixed text",
        formula="o_i = softmax_j(q_i·k_j / sqrt(D)) v_j, q_i = W_q z_i, k_j = W_k z_j, "
        "z: states of a fixed text in the same model",
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
class DeconFixedSeqQK(SoftmaxAttention):
    """Softmax attention, with a second pass of a fixed text under its queries and keys."""

    @classmethod
    def wire(cls, model: nn.Module, slots: Sequence[Attention], task: Task) -> None:
        """Send a fixed text through the model before the tokens.

        Raises:
            NotImplementedError: the model is not called with ids of one sequence alone. In a
                forward pass: a sequence is longer than the text.
        """
        places = [place for stack in stacks_of(model, slots) for place in stack]
        FixedText(model, [place for place in places if isinstance(place.slot, cls)], task)
