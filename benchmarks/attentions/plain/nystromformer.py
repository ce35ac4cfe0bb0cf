"""Nyström attention as its paper's algorithm 1 reads, for unmasked inputs."""

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.nystromformer import NystromAttention


def attend(module: NystromAttention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k = q * q.shape[-1] ** -0.25, k * k.shape[-1] ** -0.25
    m = module.landmarks
    if k.shape[-2] <= m:
        out = torch.softmax(q @ k.transpose(-1, -2), dim=-1) @ v
    else:
        landmarks_q, landmarks_k = segment_means(q, m), segment_means(k, m)
        kernel_1 = torch.softmax(q @ landmarks_k.transpose(-1, -2), dim=-1)
        kernel_2 = torch.softmax(landmarks_q @ landmarks_k.transpose(-1, -2), dim=-1)
        kernel_3 = torch.softmax(landmarks_q @ k.transpose(-1, -2), dim=-1)
        out = (kernel_1 @ inverse(kernel_2, module.iterations)) @ (kernel_3 @ v)
    if module.kernel is not None:
        padding = (module.kernel.shape[2] // 2, 0)
        out = out + F.conv2d(v, module.kernel, padding=padding, groups=v.shape[1])
    return out


def segment_means(x: Tensor, segments: int) -> Tensor:
    """(B, H, m, D): the first segments have floor(L / m) tokens, the rest one more."""
    b, h, length, d = x.shape
    if length <= segments:
        return x
    size, longer = divmod(length, segments)
    if longer == 0:
        return x.reshape(b, h, segments, size, d).mean(dim=-2)
    cut = (segments - longer) * size
    first = x[:, :, :cut].reshape(b, h, segments - longer, size, d).mean(dim=-2)
    last = x[:, :, cut:].reshape(b, h, longer, size + 1, d).mean(dim=-2)
    return torch.cat([first, last], dim=-2)


def inverse(a: Tensor, iterations: int) -> Tensor:
    eye = torch.eye(a.shape[-2], dtype=a.dtype, device=a.device)
    columns = a.sum(dim=-2).amax(dim=-1)
    rows = a.sum(dim=-1).amax(dim=-1)
    z = a.transpose(-1, -2) / (columns * rows)[..., None, None]
    for _ in range(iterations):
        az = a @ z
        z = 0.25 * z @ (13 * eye - az @ (15 * eye - az @ (7 * eye - az)))
    return z
