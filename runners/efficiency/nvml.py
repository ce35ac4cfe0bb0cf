"""NVML, which tells what a GPU draws and at what clocks it runs (package nvidia-ml-py)."""

from __future__ import annotations

from typing import Any

import torch

from runners.outcome import UnsupportedError


def nvml_of(device: torch.device) -> tuple[Any, Any]:
    """The module ``pynvml`` and its handle of a CUDA device.

    Raises:
        UnsupportedError: there is none; says why.
    """
    if device.type != "cuda":
        raise UnsupportedError("not available on a CPU")
    try:
        import pynvml
    except ImportError:
        raise UnsupportedError(
            "not available without nvidia-ml-py (pip install 'cab[gpu]')"
        ) from None
    try:
        pynvml.nvmlInit()
        # By UUID: CUDA counts only the devices that it was shown.
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid)
    except (pynvml.NVMLError, AttributeError) as error:
        raise UnsupportedError(f"not available: {error}") from None
