"""Clocks: seconds of one call on a CPU or a GPU, and what a call must hand over.

The candidate runs in this process and could do anything in it. What is used here was bound when
this module was imported, before any candidate was, and `Tampering` compares it afterwards.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter_ns
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from cab.errors import ContractError
from runners.efficiency.calls import PreparedCall

_L2_BYTES = 256 * 2**20
"""Larger than the L2 cache of any current GPU; zeroed before a call, it leaves the cache cold."""


@dataclass(frozen=True)
class Timed:
    """One timed call."""

    seconds: float
    """CPU: wall time. GPU: device time between events in the call's stream."""
    out: Tensor
    host_seconds: float | None = None
    """GPU: wall time of another call, from the first line of Python to the end of the device's
    work: what a training step would see."""


Clock = Callable[[Callable[[], PreparedCall]], Timed]
"""Times a call; takes how it is prepared, since a GPU's clock needs two."""


def clock_of(device: torch.device, cold: bool) -> Clock:
    """The clock for calls on a device; ``cold`` speaks of a GPU's L2 cache."""
    return _cuda_clock(cold) if device.type == "cuda" else _cpu_clock


def _cpu_clock(prepare: Callable[[], PreparedCall]) -> Timed:
    run = prepare().run
    start = perf_counter_ns()
    out = run()
    stop = perf_counter_ns()
    require_plain(out)
    return Timed((stop - start) * 1e-9, out)


def _cuda_clock(cold: bool) -> Clock:
    flush = torch.empty(_L2_BYTES // 4 if cold else 0, dtype=torch.int32, device="cuda")

    def clock(prepare: Callable[[], PreparedCall]) -> Timed:
        run = prepare().run
        torch.cuda.synchronize()
        began = perf_counter_ns()
        run()
        torch.cuda.synchronize()
        host = (perf_counter_ns() - began) * 1e-9

        # Last, so that what is looked at afterwards is this call's: a graph's memory is shared.
        run = prepare().run
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        # The flush also lets the host run ahead, so launch cost is hidden behind it.
        flush.zero_()
        start.record()
        out = run()
        stop.record()
        # Only the stream that the call was given is waited for: what a mechanism does in another
        # stream without joining it is not in the output that is looked at next.
        stop.synchronize()
        require_plain(out)
        snapshot = out.clone()
        torch.cuda.synchronize()
        return Timed(start.elapsed_time(stop) * 1e-3, snapshot, host)

    return clock


def require_plain(out: object) -> None:
    """The output is a tensor with its numbers in memory: nothing is left to do when it is read.

    Raises:
        ContractError: it is something lazier.
    """
    if type(out) is not Tensor:
        raise ContractError(f"returns a {type(out).__name__}, not a plain tensor; not timed")
    if out.layout is not torch.strided or out.is_meta:
        raise ContractError("returns a tensor without numbers in memory; not timed")
    if out.numel() and not out.untyped_storage().nbytes():
        raise ContractError("returns a tensor whose memory has been given back; not timed")


class Tampering:
    """Whether a candidate has replaced what measures it, or what it is compared with.

    Made before the candidate is imported.
    """

    def __init__(self, *modules: ModuleType) -> None:
        """Remember the clocks, what torch gives to look at outputs, and the functions of modules.

        Args:
            modules: of the runner and of the baselines.
        """
        self._kept: list[tuple[object, str, object, object]] = []
        for name in ("perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "time"):
            self._keep(time, name)
        for name in ("clone", "double", "item", "copy_", "detach"):
            self._keep(Tensor, name)
        for name in ("Event", "synchronize", "max_memory_allocated", "memory_allocated"):
            self._keep(torch.cuda, name)
        for name in ("scaled_dot_product_attention", "softmax"):
            self._keep(F, name)
        for module in modules:
            for name, value in vars(module).items():
                if callable(value):
                    self._keep(module, name)
                if isinstance(value, type) and value.__module__ == module.__name__:
                    for attribute in vars(value):
                        self._keep(value, attribute)
        self._wall = _both_clocks()
        self._threads = torch.get_num_threads()

    def _keep(self, owner: object, name: str) -> None:
        found = _raw(owner, name)
        self._kept.append((owner, name, found, getattr(found, "__code__", None)))

    def require_none(self) -> None:
        """Compare with what was kept.

        Raises:
            ContractError: names what has been replaced.
        """
        for owner, name, value, code in self._kept:
            found = _raw(owner, name)
            if found is not value or getattr(found, "__code__", None) is not code:
                where = getattr(owner, "__name__", type(owner).__name__)
                raise ContractError(f"has replaced {where}.{name}; its times do not count")
        if torch.get_num_threads() != self._threads:
            raise ContractError(
                f"has changed torch's threads from {self._threads} to {torch.get_num_threads()}"
            )
        then, now = self._wall, _both_clocks()
        told, least, most = now.told - then.told, now.before - then.after, now.after - then.before
        # A millisecond for the calls themselves; clocks are slewed by far less than a percent.
        if not 0.99 * least - 1e6 <= told <= 1.01 * most + 1e6:
            raise ContractError(
                f"the clock says {told * 1e-9:.3f} s where the system says {least * 1e-9:.3f} to "
                f"{most * 1e-9:.3f} s"
            )


class _Clocks(NamedTuple):
    """Python's clock between two looks at the system's, in nanoseconds: on a busy machine any time
    may pass from one to the next.
    """

    before: int
    told: int
    after: int


def _both_clocks() -> _Clocks:
    return _Clocks(_system_ns(), perf_counter_ns(), _system_ns())


def _raw(owner: object, name: str) -> Any:
    """An attribute as it is stored, so that a function of a class is itself and no bound copy."""
    return vars(owner).get(name) if hasattr(owner, "__dict__") else getattr(owner, name, None)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def _make_system_clock() -> Callable[[], int]:
    """The system's own clock, asked without Python's ``time`` module where that is possible."""
    try:
        gettime = ctypes.CDLL(None, use_errno=True).clock_gettime
    except (AttributeError, OSError, TypeError):
        return time.monotonic_ns

    def now() -> int:
        spec = _Timespec()
        gettime(time.CLOCK_MONOTONIC, ctypes.byref(spec))
        return spec.seconds * 1_000_000_000 + spec.nanoseconds

    return now


_system_ns = _make_system_clock()
