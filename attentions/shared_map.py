"""An attention map of another layer (MoAI, Kwak et al. 2025, arXiv 2506.11924).

    o_i = sum_j p_ij v_j,   p_ij = softmax_j(q'_i·k'_j / sqrt(D))

where q' and k' are the queries and keys of an earlier layer; values are the layer's own. MoAI
generates an image and its geometry in two branches, and gives the branch of geometry the attention
maps of the image's, in training and afterwards, so that both agree in what lies where. Here a stack
has one branch, and its layers share maps among each other: each takes that of the nearest layer
before it in which another mechanism stands, and else that of the first. With it in all layers a
stack has one map; in the hybrid ``softmax:1,shared-map:1`` two layers have one.

The module is softmax attention of the q and k that it is handed, and `wire` sees to where a model
takes them from: the projections of a layer give what those of the other layer gave. The layer's own
projections then have no part in it, though they count as the backbone's. The map is computed anew
in every layer, from the same q and k: what is measured is what it does to quality, and not the
time that keeping the maps would save. Where layers differ in length or width (a U-Net, distilling
between layers) it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from attentions.shared.query_sources import Place, stacks_of
from attentions.softmax import SoftmaxAttention
from cab import Attention, AttentionInfo, Family, Grade, Pattern, Task, register_attention


@register_attention(
    AttentionInfo(
        id="shared-map",
        family=Family.SOFTMAX,
        title="Softmax attention with the map of an earlier layer (MoAI)",
        formula="o_i = softmax_j(q'_i·k'_j / sqrt(D)) v_j, q' and k' of an earlier layer",
        patterns=dict.fromkeys(Pattern, Grade.ADAPTED),
        time="L^2 D",
        memory="L",
        paper="Kwak et al., Aligned Novel View Image and Geometry Synthesis via Cross-modal "
        "Attention Instillation",
        year=2025,
        url="https://arxiv.org/abs/2506.11924",
    )
)
class SharedMap(SoftmaxAttention):
    """Softmax attention, with an earlier layer's queries and keys.

    Adapted: layers of one stack share maps, where the paper has two branches of a model.
    """

    @classmethod
    def wire(cls, model: nn.Module, slots: Sequence[Attention], task: Task) -> None:
        """Let the projections of its slots give what those of another layer gave.

        Raises:
            NotImplementedError: the backbone has no projections to find. In a forward pass: the
                layers differ in length or width.
        """
        for source, *rest in stacks_of(model, slots):
            for place in rest:
                if isinstance(place.slot, cls):
                    _give(source, place)
                else:
                    source = place


def _give(source: Place, place: Place) -> None:
    for given, projection in ((source.query, place.query), (source.key, place.key)):
        held: list[Tensor] = []

        def keep(_: nn.Module, __: object, out: Tensor, held: list[Tensor] = held) -> None:
            held[:] = [out]

        def shared(_: nn.Module, __: object, out: Tensor, held: list[Tensor] = held) -> Tensor:
            if not held or held[0].shape != out.shape:
                raise NotImplementedError("shared-map needs layers of one length and width")
            return held[0]

        given.register_forward_hook(keep)
        projection.register_forward_hook(shared)
