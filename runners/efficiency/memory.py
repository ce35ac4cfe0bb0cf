"""Peak memory of one call beyond its inputs.

CUDA: the caching allocator's peak after a reset. CPU (Linux): the kernel's high-water mark of the
resident set, reset in place through /proc/self/clear_refs - tracemalloc sees no tensor storage.
Memory that the process has freed but not given back would hide a call's use, so glibc is told to
map every larger block on its own while a call is looked at, and what lies on the heap is trimmed
first. Timed calls want the opposite (`keep_freed_memory`): a block that is mapped anew costs a page
fault for every page.

`limit_memory` makes running out of memory an error that Python can catch: without a limit Linux
promises more than there is and kills the process once it is used.
"""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from runners.outcome import UnsupportedError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MAPPED_BYTES = 64 * 1024
_KEPT_BYTES = 32 * 2**20
"""What glibc raises the threshold to by itself in a process that frees large blocks"""


def peak_memory(call: Callable[[], object], device: torch.device) -> int:
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
    try:
        call()
        return max(0, _status_bytes("VmHWM") - before)
    finally:
        keep_freed_memory()


def keep_freed_memory() -> None:
    """Have glibc reuse blocks, as it does in a process that has run for a while."""
    _tune((_M_MMAP_THRESHOLD, _KEPT_BYTES), (_M_TRIM_THRESHOLD, 2 * _KEPT_BYTES))


def reserved_memory() -> int:
    """CUDA: the most that the allocator has held since the last call of `peak_memory` began; what
    the card needs, with the gaps between blocks.
    """
    return torch.cuda.max_memory_reserved()


@contextmanager
def limit_memory(share: float = 0.9) -> Iterator[None]:
    """Have allocations fail that go beyond a share of what is free now (Linux; elsewhere nothing
    is limited).
    """
    limit = _address_space(share) if sys.platform.startswith("linux") else None
    if limit is None:
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    ceiling = before[1]
    soft = limit if ceiling == resource.RLIM_INFINITY else min(limit, ceiling)
    resource.setrlimit(resource.RLIMIT_AS, (soft, ceiling))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def attempted_bytes(error: BaseException) -> int | None:
    """Size of the allocation that failed, where the message of torch's allocator tells it."""
    text = str(error)
    plain = re.search(r"tried to allocate (\d+) bytes", text)
    if plain:
        return int(plain[1])
    named = re.search(r"[Tt]ried to allocate ([\d.]+) (KiB|MiB|GiB)", text)
    return int(float(named[1]) * _UNITS[named[2]]) if named else None


_UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def _address_space(share: float) -> int | None:
    """Bytes of address space that this process may have, by what the machine and its control
    group have left.
    """
    try:
        free = _field_bytes(Path("/proc/meminfo"), "MemAvailable")
        group = Path("/sys/fs/cgroup")
        if (group / "memory.max").is_file():
            most = (group / "memory.max").read_text(encoding="ascii").strip()
            if most.isdigit():
                used = int((group / "memory.current").read_text(encoding="ascii"))
                free = min(free, int(most) - used)
        return _status_bytes("VmSize") + int(share * max(0, free))
    except (OSError, UnsupportedError):
        return None


def _status_bytes(field: str) -> int:
    return _field_bytes(Path("/proc/self/status"), field)


def _field_bytes(path: Path, field: str) -> int:
    for line in path.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise UnsupportedError(f"{path} has no {field}")


def _map_large_blocks() -> None:
    # Setting the threshold by hand also stops glibc from raising it on its own.
    _tune((_M_MMAP_THRESHOLD, _MAPPED_BYTES))
    trim = _libc("malloc_trim")
    if trim is not None:
        trim(0)


def _tune(*settings: tuple[int, int]) -> None:
    mallopt = _libc("mallopt")
    if mallopt is not None:
        for name, value in settings:
            mallopt(name, value)


def _libc(name: str) -> Callable[..., int] | None:
    """A function of glibc, where it is glibc."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
