"""Pyramid sparse attention written out, with every score in memory: the specification."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.shared.pyramids import PyramidRules

LEVELS = (1, 2, 4, 8)


def dense_pyramid_attention(
    rules: PyramidRules,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    query_mask: Tensor | None,
    key_mask: Tensor | None,
    samples: tuple[Tensor, Tensor],
) -> Tensor:
    """(B, H, Lq, Dv) of q (B, H, Lq, D), k, v, masks (B, L) and the sampled places of a block."""
    batch, length_q, length_k = q.shape[0], q.shape[2], k.shape[2]
    valid_q = _mask(query_mask, batch, q, rules.query_block)
    valid_k = _mask(key_mask, batch, k, rules.block)
    keys, values = (F.pad(x, (0, 0, 0, -length_k % rules.block)) for x in (k, v))
    queries = F.pad(q, (0, 0, 0, -length_q % rules.query_block))
    with torch.no_grad():
        levels = dense_levels(rules, queries, keys, valid_q, valid_k, samples)
    by_query = levels.repeat_interleave(rules.query_block, 2)
    place_q = torch.arange(queries.shape[2], device=q.device)[:, None]
    scores, columns = [], []
    for level in LEVELS:
        counts = valid_k.unflatten(1, (-1, level)).sum(-1).to(keys.dtype)
        shares = counts.clamp(min=1)[:, None, :, None]
        pooled, means = (x.unflatten(2, (-1, level)).sum(3) / shares for x in (keys, values))
        own = queries @ pooled.mT * q.shape[-1] ** -0.5 + counts.log()[:, None, None]
        sees = (by_query == level).repeat_interleave(rules.block // level, -1)
        sees = sees & (counts > 0)[:, None, None]
        if rules.causal:
            last = torch.arange(counts.shape[1], device=q.device) * level + level - 1
            sees = sees & (last <= place_q)
        scores.append(own.masked_fill(~sees, -math.inf))
        columns.append(means)
    every = torch.cat(scores, dim=-1)
    empty = (every == -math.inf).all(-1, keepdim=True)
    weights = every.masked_fill(empty, 0.0).softmax(-1).masked_fill(empty, 0.0)
    return (weights @ torch.cat(columns, dim=2))[:, :, :length_q]


def dense_levels(
    rules: PyramidRules,
    q: Tensor,
    k: Tensor,
    valid_q: Tensor,
    valid_k: Tensor,
    samples: tuple[Tensor, Tensor],
) -> Tensor:
    """(B, H, query blocks, key blocks) levels, block by block."""
    batch, heads, rows, columns = *q.shape[:2], q.shape[2], k.shape[2]
    blocks_q, blocks_k = rows // rules.query_block, columns // rules.block
    scores = q @ k.mT * q.shape[-1] ** -0.5
    levels = torch.zeros(batch, heads, blocks_q, blocks_k, dtype=torch.long, device=q.device)
    for b in range(batch):
        filled = valid_k[b].view(blocks_k, -1).any(-1)
        for i in range(blocks_q):
            first = i * rules.query_block
            last = first + rules.query_block - 1
            past = [(j + 1) * rules.block <= first or not rules.causal for j in range(blocks_k)]
            ranked = [j for j in range(blocks_k) if past[j] and filled[j]]
            for h in range(heads):
                own = levels[b, h, i]
                if rules.shifted and i == 0:
                    own[ranked] = 1
                elif ranked:
                    by = i - 1 if rules.shifted else i
                    found = _importance(
                        rules, scores[b, h], q[b, h], k[b, h], valid_q[b], valid_k[b], by, ranked,
                        samples,
                    )  # fmt: skip
                    for place, level in _chosen(rules, found):
                        j = ranked[place]
                        cap = _cap(rules, k[b, h], valid_k[b], j)
                        own[j] = min(level, cap)
                if rules.causal:
                    for j in range(blocks_k):
                        on_diagonal = not past[j] and j * rules.block <= last
                        if filled[j] and (on_diagonal or (j == 0 and past[j])):
                            own[j] = 1
    return levels


def _importance(
    rules: PyramidRules,
    scores: Tensor,
    q: Tensor,
    k: Tensor,
    valid_q: Tensor,
    valid_k: Tensor,
    i: int,
    ranked: list[int],
    samples: tuple[Tensor, Tensor],
) -> list[float]:
    """Logarithms of the importance of some key blocks for query block i, up to a constant."""
    n, m = rules.query_block, rules.block
    own = torch.arange(i * n, (i + 1) * n, device=q.device)
    blocks = [torch.arange(j * m, (j + 1) * m, device=q.device) for j in ranked]
    if rules.importance == "meanpool":
        query = q[own][valid_q[own]].sum(0) / max(1, int(valid_q[own].sum()))
        means = [k[at][valid_k[at]].mean(0) for at in blocks]
        return [float(query @ mean) / q.shape[-1] ** 0.5 for mean in means]
    if rules.importance == "maxexp":
        best = torch.full((len(samples[0]), len(ranked)), -math.inf, dtype=scores.dtype)
        for place, at in enumerate(blocks):
            some = at[samples[1]][valid_k[at[samples[1]]]]
            if len(some):
                best[:, place] = scores[own[samples[0]]][:, some].amax(-1)
        shares = (best - best.amax(-1, keepdim=True)).nan_to_num(-math.inf, neginf=-math.inf)
        shares[~valid_q[own[samples[0]]]] = -math.inf
        return [float(x) for x in shares.amax(0)]
    side = math.gcd(16, n, m)
    mass = torch.zeros(len(ranked), dtype=scores.dtype)
    for top in range(i * n, (i + 1) * n, side):
        if not valid_q[top : top + side].any():
            continue
        tiles = []
        for place, at in enumerate(blocks):
            for left in range(int(at[0]), int(at[-1]) + 1, side):
                if valid_k[left : left + side].any():
                    tile = scores[top : top + side, left : left + side]
                    tiles.append((place, float(tile.flip(0).diagonal().sum()) / side))
        weights = torch.tensor([x for _, x in tiles], dtype=scores.dtype).softmax(0)
        for (place, _), weight in zip(tiles, weights, strict=True):
            mass[place] += weight
    return [float(x) for x in mass.log()]


def _chosen(rules: PyramidRules, importance: list[float]) -> list[tuple[int, int]]:
    """Places among the ranked blocks that are read, and at which level."""
    n = len(importance)
    order = sorted(range(n), key=lambda place: -importance[place])
    top = importance[order[0]]
    weights = [math.exp(importance[p] - top) if top > -math.inf else 1.0 for p in order]
    chosen, start, total = [], 0, 0.0
    for level, share in zip(LEVELS, rules.shares, strict=True):
        total += share
        if rules.selection == "topk":
            end, least = math.floor(n * total + 1e-9), 1
        else:
            running = [sum(weights[: x + 1]) / sum(weights) for x in range(n)]
            within = sum(x <= total for x in running)
            end, least = within + 1 if within else start, math.floor(0.06 * n + 1e-9) + 1
        end = min(n, max(end, start, least if level == 1 else 0))
        chosen += [(place, level) for place in order[start:end]]
        start = end
    return chosen


def _cap(rules: PyramidRules, k: Tensor, valid: Tensor, j: int) -> int:
    """The coarsest level at which the keys of block j are alike."""
    if rules.similar is None:
        return LEVELS[-1]
    cap = 1
    for level, threshold in zip(LEVELS[1:], rules.similar, strict=True):
        cosines = [
            float(F.cosine_similarity(k[at], k[at + level - 1], dim=0, eps=1e-12))
            for at in range(j * rules.block, (j + 1) * rules.block, level)
            if valid[at] and valid[at + level - 1]
        ]
        if cosines and sum(cosines) / len(cosines) > threshold:
            cap = level
    return cap


def _mask(mask: Tensor | None, batch: int, x: Tensor, size: int) -> Tensor:
    """(B, L') bool, whole blocks."""
    if mask is None:
        mask = torch.ones(batch, x.shape[2], dtype=torch.bool, device=x.device)
    return F.pad(mask, (0, -x.shape[2] % size))
