"""What the machine can do: rates of a matrix product and of a copy, measured in the same process.

They are the empirical roofline that utilisation is relative to. No table of data sheets: an unknown
device, fewer threads or a power cap would make one wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter_ns

import torch

from cab.errors import ContractError
from runners.efficiency.arithmetic import Arithmetic
from runners.efficiency.neighbours import NOISY_CORES
from runners.outcome import DisturbedError

_GEMM_SIZES = {"cpu": (256, 512, 1024), "cuda": (4096, 8192)}
"""On a busy CPU only a product that is over before the scheduler turns to others shows its rate."""
_COPY_BYTES = {"cpu": (2**16, 2**19, 2**22, 2**27), "cuda": (2**24, 2**30)}
"""From a core's own cache to well beyond any: the last is what memory gives."""
_TRIES = 4
_MOST_SLOWED = 10.0
"""Factor by which neighbours may slow the fastest of many calls in all tries"""
_SECONDS = 0.06
"""For each size"""


@dataclass(frozen=True)
class Roofline:
    """Rates of this process on this device."""

    flops: float
    """FLOP/s of the fastest matrix product, in the dtype of the calls"""
    fastest_flops: float
    """FLOP/s in the faster of that dtype and float32, in which a mechanism may compute"""
    memory_bandwidth: float
    """B/s read and written by a copy that no cache holds"""
    cache_bandwidth: float
    """B/s of the fastest copy of any size"""

    def least_seconds(self, work: Arithmetic) -> float:
        """No call can take less: all operations at the rate of the fastest matrix product, all
        bytes at that of the fastest copy.
        """
        return max(work.flops / self.fastest_flops, work.least_bytes / self.cache_bandwidth)


def measure_roofline(device: torch.device, dtype: torch.dtype) -> Roofline:
    """Take the fastest of several tries, since a neighbour can only slow them down."""
    rates = {
        kind: max(_gemm_rate(size, device, kind) for size in _GEMM_SIZES[device.type])
        for kind in dict.fromkeys((dtype, torch.float32))
    }
    copies = [_copy_rate(count, device) for count in _COPY_BYTES[device.type]]
    return Roofline(rates[dtype], max(rates.values()), copies[-1], max(copies))


def require_possible(
    seconds: float,
    work: Arithmetic,
    roofline: Roofline,
    again: Callable[[], Roofline],
    others: Callable[[], float | None],
) -> None:
    """Refuse a time that the machine's own rates do not allow.

    Args:
        seconds: of one call.
        work: of that call.
        roofline: measured earlier in this process.
        again: measures it anew, in case that the machine was slower then than it is now; several
            times, since a neighbour slows some measurements and not others.
        others: cores that others have kept busy meanwhile; None where the system does not say.

    Raises:
        ContractError: the call is faster still; its work was not done, or its formula is wrong.
        DisturbedError: it is somewhat faster, and others may have slowed the rates.
    """
    if seconds >= roofline.least_seconds(work):
        return
    least = roofline.least_seconds(work)
    for _ in range(_TRIES):
        least = min(least, again().least_seconds(work))
        if seconds >= least:
            return
    found = (
        f"{seconds:.2e} s a call is faster than the {least:.2e} s that this machine "
        f"needs for {work.flops:.2e} FLOP and {work.least_bytes:.2e} B"
    )
    busy = others()
    if (busy is None or busy > NOISY_CORES) and seconds * _MOST_SLOWED > least:
        who = "nobody knows what else ran" if busy is None else f"others kept {busy:.1f} cores busy"
        raise DisturbedError(f"not judged: {found}, but {who} while its rates were measured")
    raise ContractError(f"invalid: {found}")


def _gemm_rate(size: int, device: torch.device, dtype: torch.dtype) -> float:
    a, b, out = (torch.randn(size, size, device=device).to(dtype) for _ in range(3))
    return 2.0 * size**3 / _fastest(lambda: torch.mm(a, b, out=out), device)


def _copy_rate(count: int, device: torch.device) -> float:
    source = torch.zeros(count // 2, dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    return count / _fastest(lambda: target.copy_(source), device)


def _fastest(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of many calls; several in a row where the clock is coarse."""
    cuda = device.type == "cuda"

    def seconds(repeats: int) -> float:
        if cuda:
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(repeats):
                call()
            stop.record()
            stop.synchronize()
            return start.elapsed_time(stop) * 1e-3 / repeats
        began = perf_counter_ns()
        for _ in range(repeats):
            call()
        return (perf_counter_ns() - began) * 1e-9 / repeats

    seconds(1)
    one = seconds(1)
    repeats = max(1, int(1e-4 / max(one, 1e-9)))
    best, spent = one, 0.0
    while spent < _SECONDS:
        took = seconds(repeats)
        best, spent = min(best, took), spent + took * repeats
    return best
