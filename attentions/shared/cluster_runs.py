"""Keys that stand cluster after cluster, each in the order of places: what a causal query reads of
its cluster is then one run of them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Runs(NamedTuple):
    """What each query reads of its cluster."""

    first: Tensor
    """(B, H, Lq) among the keys in their order"""
    last: Tensor
    """One behind the last"""
    order: Tensor
    """(B, H, Lk) places of the keys in that order"""
    own: Tensor
    """(B, H, Lq) bool, whether the query's own token has a valid key that is not in the run"""


@torch.no_grad()
def causal_runs(
    of_queries: Tensor, of_keys: Tensor, mask: Tensor | None, clusters: int, window: int
) -> Runs:
    """The last ``window`` keys in the query's cluster that are not after it.

    Args:
        of_queries: (B, H, Lq) clusters of the last Lq tokens.
        of_keys: (B, H, Lk).
        mask: (B, Lk) bool, True where valid, or None.
        clusters: how many there are.
        window: keys that are read at most.
    """
    length, lag = of_keys.shape[2], of_keys.shape[2] - of_queries.shape[2]
    inside, order, starts = _in_order(of_keys, mask, clusters)
    # Cluster and place as one number, which ascends.
    asked = of_queries * length + torch.arange(lag, length, device=of_keys.device)
    last = torch.searchsorted(inside * length + order, asked, right=True)
    first = torch.maximum(starts.gather(-1, of_queries), last - window)
    own = of_queries != of_keys[..., lag:]
    return Runs(first, last, order, own if mask is None else own & mask[:, None, lag:])


def last_of_clusters(
    of_keys: Tensor, mask: Tensor | None, clusters: int, window: int
) -> tuple[Tensor, Tensor]:
    """(B, H, C, window) places of the last keys of each cluster, member m in slot m % window, and
    (B, H, C) how many the cluster has had.
    """
    _, order, starts = _in_order(of_keys, mask, clusters)
    counts = starts[..., 1:] - starts[..., :-1]
    slot = torch.arange(window, device=of_keys.device)
    newest = counts[..., None] - 1
    member = newest - (newest - slot) % window
    index = (starts[..., :-1, None] + member.clamp(min=0)).clamp(max=of_keys.shape[2] - 1)
    return order.gather(-1, index.flatten(2)).view_as(index), counts


def put(tensors: dict[str, Tensor], own: Tensor, key: Tensor, value: Tensor) -> None:
    """Put a token's key and value (B, H, 1, D) into the next slot of its cluster (B, H).

    ``tensors`` has ``k`` and ``v`` (B, H, C, window, D) and ``counts`` (B, H, C).
    """
    counts, window = tensors["counts"], tensors["k"].shape[3]
    slot = counts.gather(2, own[..., None])[..., 0] % window
    index = (own * window + slot)[..., None, None]
    for name, x in (("k", key), ("v", value)):
        flat = tensors[name].flatten(2, 3)
        flat = flat.scatter(2, index.expand(-1, -1, 1, x.shape[-1]), x.to(flat.dtype))
        tensors[name] = flat.view_as(tensors[name])
    tensors["counts"] = counts.scatter_add(2, own[..., None], torch.ones_like(own[..., None]))


def at_places(x: Tensor, places: Tensor) -> Tensor:
    """(B, H, .., D) tokens (B, H, L, D) at places (B, H, ..)."""
    index = places.flatten(2)[..., None].expand(-1, -1, -1, x.shape[-1])
    return x.gather(2, index).view(*places.shape, x.shape[-1])


def _in_order(of_keys: Tensor, mask: Tensor | None, clusters: int) -> tuple[Tensor, Tensor, Tensor]:
    """Clusters and places of the keys in order, masked ones last, (B, H, L) each; and where each
    cluster begins and the last one ends, (B, H, C + 1).
    """
    if mask is not None:
        of_keys = of_keys.masked_fill(~mask[:, None], clusters)
    inside, order = of_keys.sort(dim=-1, stable=True)
    sizes = F.one_hot(of_keys, clusters + 1)[..., :clusters].sum(2)
    return inside, order, F.pad(sizes.cumsum(-1), (1, 0))
