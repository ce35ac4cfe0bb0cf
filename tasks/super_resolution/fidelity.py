"""PSNR and SSIM of 8-bit RGB pictures, one number a picture.

As SR3's usual implementation and CAB count them: on the three colour channels alike, not on luma;
values are rounded to 8 bits and the range is 255; no border is cut. SSIM (Wang et al. 2004) has
Gaussian windows of 11 x 11 pixels, sigma 1.5, and only windows that lie inside the picture count.
"""

from __future__ import annotations

from torch import Tensor

_RANGE = 255.0
_WINDOW = 11
"""Side of torchmetrics' windows at sigma 1.5"""


def psnr(pictures: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, (N,) float64, of (N, 3, H, W) uint8; infinite where the
    two pictures are the same.
    """
    # Loading torchmetrics takes most of a second, which listings need not wait for.
    from torchmetrics.functional.image import peak_signal_noise_ratio

    return peak_signal_noise_ratio(
        pictures.double(),
        truth.double(),
        data_range=_RANGE,
        dim=(1, 2, 3),
        reduction="none",
    )


def ssim(pictures: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity, (N,) float64, of (N, 3, H, W) uint8 of at least 11 pixels a side."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    _, local = structural_similarity_index_measure(
        pictures.double(),
        truth.double(),
        gaussian_kernel=True,
        sigma=1.5,
        data_range=_RANGE,
        reduction="none",
        return_full_image=True,
    )
    inside = slice(_WINDOW // 2, -(_WINDOW // 2))
    return local[..., inside, inside].mean(dim=(1, 2, 3))
