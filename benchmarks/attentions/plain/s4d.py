"""S4D with kernels as long as the sequence, applied by Fourier transforms."""

import torch
from torch import Tensor
from torch.nn import functional as F

from cab import Attention


def attend(module: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """GELU(k * v + d v) channel by channel, k[l] = 2 Re sum_n C_n (e^(Δλ_n) - 1)/λ_n e^(Δλ_n l)"""
    length = v.shape[-2]
    u = v.transpose(-1, -2).flatten(1, 2)
    step = module.log_step.exp()
    eigenvalues = torch.complex(-module.log_decay.exp(), module.frequency)
    rates = step[:, None] * eigenvalues
    powers = (rates[..., None] * torch.arange(length)).exp()
    c = torch.view_as_complex(module.output) * (rates.exp() - 1) / eigenvalues
    kernels = 2 * torch.einsum("sen,enl->sel", c, powers).real
    kernel = F.pad(kernels[0], (0, length))
    if len(kernels) == 2:
        kernel = kernel + F.pad(kernels[1].flip(-1), (length, 0))
    spectrum = torch.fft.rfft(u, n=2 * length) * torch.fft.rfft(kernel, n=2 * length)
    y = torch.fft.irfft(spectrum, n=2 * length)[..., :length]
    out = F.gelu(y + module.skip[:, None] * u)
    return out.unflatten(1, (v.shape[1], -1)).transpose(-1, -2)
