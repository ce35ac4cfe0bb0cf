"""Peak memory of one call beyond its inputs.

CUDA: the caching allocator's peak after a reset. CPU (Linux): the kernel's high-water mark of the
resident set, reset in place through /proc/self/clear_refs - tracemalloc sees no tensor storage.
Memory that the process has freed but not given back would hide a call's use, so glibc is told to
map every larger block on its own, and what lies on the heap is trimmed first.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from pathlib import Path

import torch

from runners.efficiency.calls import Prepared
from runners.outcome import UnsupportedError

_M_MMAP_THRESHOLD = -3
_MAPPED_BYTES = 64 * 1024


def peak_memory(call: Prepared, device: torch.device) -> int:
    """Bytes above the level before the call.

    Raises:
        UnsupportedError: neither CUDA nor a Linux /proc that can be reset.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    _map_large_blocks()
    reset = Path("/proc/self/clear_refs")
    try:
        reset.write_text("5", encoding="ascii")
    except OSError as error:
        raise UnsupportedError(
            "peak memory on a CPU needs Linux with a writable /proc/self/clear_refs"
        ) from error
    before = _status_bytes("VmRSS")
    call()
    return max(0, _status_bytes("VmHWM") - before)


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise UnsupportedError(f"/proc/self/status has no {field}")


def _map_large_blocks() -> None:
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    # Setting the threshold by hand also stops glibc from raising it on its own.
    for name, arguments in (
        ("mallopt", (_M_MMAP_THRESHOLD, _MAPPED_BYTES)),
        ("malloc_trim", (0,)),
    ):
        function = getattr(libc, name, None)
        if function is not None:
            function(*arguments)
