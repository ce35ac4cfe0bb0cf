"""Chunks of keys that end where the content changes.

The boundary score of the gap behind token i compares the w tokens before it with the w after it:
1 less the cosine of their mean keys, all heads beside each other. Gaps whose score stands out are
boundaries. None of this has a gradient.

Where a query must not see what comes later, chunks are `online`: a gap is held to the scores before
it, and first come first served. Whether there is a boundary behind token i then hangs on the tokens
up to i + w alone.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_SURE = 1e-6
"""By which a score must exceed the bar: equal ones differ by rounding"""


@torch.no_grad()
def boundary_scores(k: Tensor, valid: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """1 - cos of the means before and after the gap behind each token.

    Args:
        k: (B, H, L, D), zeros where masked.
        valid: (B, L) bool.
        width: w, tokens on each side.

    Returns:
        (B, L) float64, and (B, L) bool: whether there are valid tokens on both sides.
    """
    features = k.transpose(1, 2).flatten(2).double()
    length = features.shape[1]
    before, some = torch.zeros_like(features), torch.zeros_like(valid, dtype=torch.long)
    for lag in range(min(width, length)):
        before[:, lag:] += features[:, : length - lag]
        some[:, lag:] += valid[:, : length - lag]
    before, some = F.pad(before, (0, 0, 0, width)), F.pad(some, (0, width))
    # Behind the end, windows have lost their first tokens.
    for behind in range(width):
        own = slice(max(0, length + behind - width + 1), length)
        before[:, length + behind] = features[:, own].sum(1)
        some[:, length + behind] = valid[:, own].sum(1)
    # The directions of sums are those of means.
    left, right = before[:, :length], before[:, width:]
    scores = 1 - F.cosine_similarity(left, right, dim=-1)
    return scores, (some[:, :length] > 0) & (some[:, width:] > 0)


@torch.no_grad()
def chunk_starts(
    scores: Tensor,
    candidates: Tensor,
    *,
    threshold: float,
    spacing: int,
    most: list[int],
    online: bool,
) -> Tensor:
    """(B, L) bool, True at the first token of each chunk.

    Args:
        scores: (B, L) of the gaps behind the tokens. candidates: (B, L) bool.
        threshold: a boundary's score is above the mean by this many standard deviations; with
            ``online`` those of the gaps up to it, else of all.
        spacing: boundaries are at least this far apart: of those that are nearer the better one is
            kept, with ``online`` the first.
        most: chunks at most in each row of the batch; not with ``online``.
        online: whether boundaries hang on nothing later.
    """
    weight = candidates.double()
    scores = scores * weight
    sums = torch.stack([weight, scores, scores.square()])
    sums = sums.cumsum(-1) if online else sums.sum(-1, keepdim=True)
    count, total, squares = sums
    mean = total / count.clamp(min=1)
    deviation = (squares / count.clamp(min=1) - mean.square()).clamp(min=0).sqrt()
    above = candidates & (scores - mean > threshold * deviation + _SURE)
    starts = torch.zeros_like(candidates)
    starts[:, :1] = True
    order = torch.arange(scores.shape[-1], device=scores.device).expand_as(scores)
    if not online:
        order = scores.argsort(dim=-1, descending=True, stable=True)
    for row, (places, kept) in enumerate(zip(order, above, strict=True)):
        chosen: list[int] = []
        blocked = bytearray(scores.shape[-1])
        for place in places[kept[places]].tolist():
            if not online and len(chosen) + 1 >= most[row]:
                break
            if not blocked[place]:
                chosen.append(place)
                low, high = max(0, place - spacing + 1), min(len(blocked), place + spacing)
                blocked[low:high] = b"\1" * (high - low)
        starts[row, torch.tensor(chosen, dtype=torch.long, device=starts.device) + 1] = True
    return starts
