"""ProbSparse attention as Informer's algorithm 1 reads, with the sampled keys gathered."""

import torch
from torch import Tensor

from attentions.prob_sparse import ProbSparseAttention, sampled_ranks


def attend(module: ProbSparseAttention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    length, dim = q.shape[-2:]
    count = module._count(length)
    samples = sampled_ranks(module.spec.layer_index, length, count, q.device)
    sampled = torch.einsum("bhid,bhijd->bhij", q, k[:, :, samples])
    measure = sampled.max(dim=-1).values - sampled.sum(dim=-1) / length
    top = measure.topk(count, dim=-1).indices[..., None]
    chosen = q.gather(2, top.expand(-1, -1, -1, dim))
    weights = (torch.einsum("bhid,bhjd->bhij", chosen, k) / dim**0.5).softmax(dim=-1)
    context = v.mean(dim=2, keepdim=True).repeat(1, 1, length, 1)
    return context.scatter(2, top.expand(-1, -1, -1, v.shape[-1]), weights @ v)
