"""Whether attention maps point to the evidence, as they are and contrasted with a generic question.

After CARVE (arXiv 2509.06461), which knows where to look in a picture from two maps over the same
keys: A of the question and G of an instruction that asks for nothing in particular,

    C_j = A_j / (G_j + lambda),   divided by the sum over j

so that keys which draw attention whatever is asked lose it. There both are maps of a model of
vision and language, fused over late layers. Only the paper's abstract was at hand: lambda and the
layers are choices made here. Adapted, for models that have no instructions: the generic question is
the mean of all questions of the batch, as a query and as a layer's input; lambda is the even weight
1 / n of n keys; and maps are fused by their mean over the heads and slots that see the keys in
question. What CARVE goes on to do, cropping the picture and asking again, has no counterpart: what
is measured is the localisation.

The score of a map is the probability that the key with the answer has a larger weight than another
key that the question sees, a tie counting half (the area under the ROC curve): 1 where every
question points to its answer, 0.5 by chance.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from cab.analysis import Evidence
from runners.analysis.calls import Call
from runners.analysis.maps import SEQUENCES, attention_map

PLAIN, CONTRASTED = "evidence_auc", "evidence_auc_contrastive"


@torch.no_grad()
def evidence_scores(maps: Iterable[tuple[Call, Tensor]], evidence: Evidence) -> dict[str, float]:
    """`PLAIN` and `CONTRASTED`; nothing where no slot with a map sees the keys.

    Args:
        maps: slots' first calls with their maps (B', H, Lq, Lk) of the first sequences.
        evidence: of the whole batch.
    """
    plain, contrasted, sees = [], [], []
    for call, found in maps:
        if found.shape[-1] != evidence.keys or call.q.shape[0] != len(evidence.asked):
            continue
        generic = attention_map(_generic(call, evidence.asked))
        if generic is None:
            continue
        asked = evidence.asked[:SEQUENCES]
        rows = _rows(found, asked)
        plain.append(rows.mean(1))
        contrasted.append(contrast(rows, _rows(generic, asked)).mean(1))
        sees.append(_visible(call, asked))
    if not plain:
        return {}
    place = evidence.found[:SEQUENCES]
    visible = torch.stack(sees).all(0)
    return {
        name: _area(torch.stack(maps_of).mean(0), place, visible)
        for name, maps_of in ((PLAIN, plain), (CONTRASTED, contrasted))
    }


def contrast(specific: Tensor, generic: Tensor) -> Tensor:
    """(.., n) weights of a question over those of a generic one, in rows of sum 1; a negative
    weight, which points to nothing, counts as none.
    """
    ratio = specific.clamp(min=0) / (generic.clamp(min=0) + 1 / specific.shape[-1])
    return ratio / ratio.sum(-1, keepdim=True).clamp(min=torch.finfo(ratio.dtype).tiny)


def _generic(call: Call, asked: Tensor) -> Call:
    """The call with the mean of all questions in the place of each."""
    context = call.context
    if context is not None and context.query_input is not None:
        inputs = _averaged(context.query_input[:, None], asked)[:, 0]
        context = replace(context, query_input=inputs)
    return replace(call, q=_averaged(call.q, asked), context=context)


def _averaged(x: Tensor, asked: Tensor) -> Tensor:
    """(B, H, L, D) with the mean over sequences and questions at the places that ask."""
    index = asked[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[-1])
    mean = x.gather(2, index).mean((0, 2), keepdim=True)
    return x.scatter(2, index, mean.expand_as(index))


def _rows(found: Tensor, asked: Tensor) -> Tensor:
    """(B', H, A, Lk) rows of the questions."""
    index = asked[:, None, :, None].expand(-1, found.shape[1], -1, found.shape[-1])
    return found.gather(2, index)


def _visible(call: Call, asked: Tensor) -> Tensor:
    """(B', A, Lk) bool: the keys that a question may see."""
    keys = torch.arange(call.k.shape[-2], device=asked.device)
    seen = torch.ones(*asked.shape, len(keys), dtype=torch.bool, device=asked.device)
    if call.module.pattern.causal and not call.module.pattern.cross:
        seen &= keys <= asked[..., None] + len(keys) - call.q.shape[-2]
    if call.context is not None and call.context.key_mask is not None:
        seen &= call.context.key_mask[:SEQUENCES, None]
    return seen


def _area(weights: Tensor, place: Tensor, visible: Tensor) -> float:
    """Mean over questions of the area under the curve, of (B', A, Lk) weights."""
    own = weights.gather(2, place[..., None])
    others = visible.scatter(2, place[..., None], False)
    beaten = (own > weights).double() + 0.5 * (own == weights).double()
    areas = (beaten * others).sum(-1) / others.sum(-1)
    return areas[others.any(-1)].mean().item()
