"""LARA as its equations read, with every term of the importance weights, for unmasked inputs."""

import torch
from torch import Tensor

from attentions.lara import LinearRandomizedAttention
from benchmarks.attentions.plain.nystromformer import segment_means


def attend(module: LinearRandomizedAttention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scale = q.shape[-1] ** -0.5
    q_bar, k_bar = segment_means(q, module.landmarks), segment_means(k, module.landmarks)
    mu = w = q_bar + k_bar
    copies = 2 if module.training and module.antithetic else 1
    if module.training:
        noise = torch.randn_like(mu)
        if module.antithetic:
            noise = torch.cat([noise, -noise], dim=-2)
        mu = mu.repeat(1, 1, copies, 1)
        w = mu + noise

    log_q = torch.einsum("bhcd,bhnd->bhcn", w, q) * scale
    log_q = log_q - (q**2).sum(-1).unsqueeze(-2) * scale / 2
    log_k = torch.einsum("bhcd,bhnd->bhcn", w, k) * scale
    log_k = log_k - (k**2).sum(-1).unsqueeze(-2) * scale / 2
    log_mu = torch.einsum("bhcd,bhed->bhce", w, mu) * scale
    log_mu = log_mu - (mu**2).sum(-1).unsqueeze(-2) * scale / 2
    log_own = log_mu.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)

    if module.weighting == "query":
        log_alpha = torch.einsum("bhcd,bhnd->bhcn", mu, q) * scale
    else:
        t = torch.softmax(torch.einsum("bhcd,bhnd->bhcn", q_bar, q) * scale, dim=-2)
        t = t.repeat(1, 1, copies, 1)
        balance = torch.exp(log_own - torch.logsumexp(log_mu, dim=-1, keepdim=True))
        alpha = balance + t - t.mean(dim=-2, keepdim=True)
        log_alpha = torch.log(alpha.clamp(min=1e-8))

    statistics = torch.einsum("bhcn,bhnd->bhcd", torch.softmax(log_k, dim=-1), v)
    ratio = log_alpha + log_q + torch.logsumexp(log_k, dim=-1, keepdim=True) - log_own
    return torch.einsum("bhcn,bhcd->bhnd", torch.softmax(ratio, dim=-2), statistics)
