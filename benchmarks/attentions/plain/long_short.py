"""Long-short attention with unfolded windows, and summaries by einsum."""

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.long_short import LongShortAttention


def attend(module: LongShortAttention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return causal(module, q, k, v) if module.causal else noncausal(module, q, k, v)


def noncausal(module: LongShortAttention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    length, block, reach = q.shape[-2], module.segment, module.before
    weights = torch.einsum("bhjd,hdr->bhjr", k, module.projection).softmax(dim=2)
    k, v = normalise(module.norm_window, k), normalise(module.norm_window_v, v)
    summary_k = normalise(module.norm_summary, torch.einsum("bhjr,bhjd->bhrd", weights, k))
    summary_v = normalise(module.norm_summary_v, torch.einsum("bhjr,bhjd->bhrd", weights, v))
    blocks = -(-length // block)
    padding = blocks * block - length
    queries = F.pad(q, (0, 0, 0, padding)).unflatten(2, (blocks, block))
    # (B, H, blocks, D, block + 2 reach)
    k, v = (
        F.pad(x, (0, 0, reach, reach + padding)).unfold(2, block + 2 * reach, block) for x in (k, v)
    )
    near = torch.einsum("bhnid,bhndj->bhnij", queries, k)
    key = torch.arange(blocks, device=q.device)[:, None, None] * block - reach
    key = key + torch.arange(block + 2 * reach, device=q.device)
    near = near.masked_fill((key < 0) | (key >= length), float("-inf"))
    far = torch.einsum("bhnid,bhrd->bhnir", queries, summary_k)
    weights = (torch.cat([far, near], dim=-1) / q.shape[-1] ** 0.5).softmax(dim=-1)
    far, near = weights.split([far.shape[-1], near.shape[-1]], dim=-1)
    out = torch.einsum("bhnir,bhrd->bhnid", far, summary_v)
    out = out + torch.einsum("bhnij,bhndj->bhnid", near, v)
    return out.flatten(2, 3)[:, :, :length]


def causal(module: LongShortAttention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    length, window, chunk = q.shape[-2], module.before + 1, module.chunk
    chunks = length // chunk
    whole_k, whole_v = (x[:, :, : chunks * chunk].unflatten(2, (chunks, chunk)) for x in (k, v))
    weights = torch.einsum("bhnjd,hdr->bhnjr", whole_k, module.projection).softmax(dim=3)
    summary_k = torch.einsum("bhnjr,bhnjd->bhnrd", weights, whole_k).flatten(2, 3)
    summary_v = torch.einsum("bhnjr,bhnjd->bhnrd", weights, whole_v).flatten(2, 3)
    summary_k = normalise(module.norm_summary, summary_k)
    summary_v = normalise(module.norm_summary_v, summary_v)
    k, v = normalise(module.norm_window, k), normalise(module.norm_window_v, v)
    blocks = -(-length // window)
    padding = blocks * window - length
    queries = F.pad(q, (0, 0, 0, padding)).unflatten(2, (blocks, window))
    # (B, H, blocks, D, 2 window): a block's own keys and those of the block before
    k, v = (F.pad(x, (0, 0, window, padding)).unfold(2, 2 * window, window) for x in (k, v))
    near = torch.einsum("bhnid,bhndj->bhnij", queries, k)
    position = torch.arange(blocks * window, device=q.device).view(blocks, window, 1)
    key = torch.arange(blocks, device=q.device)[:, None, None] * window - window
    key = key + torch.arange(2 * window, device=q.device)
    sees = (key > position - window) & (key <= position) & (key >= 0)
    near = near.masked_fill(~sees, float("-inf"))
    far = torch.einsum("bhnid,bhrd->bhnir", queries, summary_k)
    group = torch.arange(far.shape[-1], device=q.device) // module.rank
    far = far.masked_fill(group >= position // chunk, float("-inf"))
    weights = (torch.cat([far, near], dim=-1) / q.shape[-1] ** 0.5).softmax(dim=-1)
    far, near = weights.split([far.shape[-1], near.shape[-1]], dim=-1)
    out = torch.einsum("bhnir,bhrd->bhnid", far, summary_v)
    out = out + torch.einsum("bhnij,bhndj->bhnid", near, v)
    return out.flatten(2, 3)[:, :, :length]


def normalise(heads_norm: torch.nn.Module, x: Tensor) -> Tensor:
    norm = heads_norm.norm
    tokens = x.transpose(1, 2).flatten(2)
    return norm(tokens).unflatten(2, (x.shape[1], -1)).transpose(1, 2)
