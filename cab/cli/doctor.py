"""``cab doctor``: what this machine offers, what is missing and how to get it."""

from __future__ import annotations

import importlib.util
import os
import platform
from importlib.metadata import PackageNotFoundError, entry_points, version

from cab.cli.console import console, styled, table
from cab.registries import ATTENTIONS, TASKS
from cab.version import SUITE_VERSION


def doctor_command() -> None:
    """Print one line per fact; a mark shows what needs attention."""
    import torch

    shown = table("", "", "")
    shown.show_header = False

    def line(good: bool | None, name: str, fact: str) -> None:
        marks = {True: ("green", "ok"), False: ("red", "!!"), None: ("yellow", "--")}
        shown.add_row(styled(*marks[good]), name, fact)

    line(True, "cab", SUITE_VERSION)
    line(True, "python", platform.python_version())
    line(True, "torch", f"{torch.__version__} (CUDA {torch.version.cuda or 'not built in'})")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            memory = properties.total_memory / 2**30
            line(True, f"gpu {index}", f"{properties.name}, {memory:.0f} GiB")
    elif torch.version.cuda:
        line(None, "gpu", "none found; torch has CUDA, so check the driver with nvidia-smi")
    else:
        line(None, "gpu", "none; this torch is a CPU build - for a GPU install a CUDA build of it")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    line(True, "cores", f"{cores} usable, torch uses {torch.get_num_threads()} threads")
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        if name in os.environ:
            line(None, name, f"{os.environ[name]}; workers set their own")
    line(*_package("triton", "GPU kernels", "pip install triton (Linux)"))
    line(*_package("streamlit", "dashboard", "pip install streamlit"))
    memory_probe = os.access("/proc/self/clear_refs", os.W_OK)
    line(
        True if memory_probe else None,
        "cpu memory",
        "resettable high-water mark"
        if memory_probe
        else "peak memory on a CPU needs Linux with a writable /proc/self/clear_refs",
    )
    broken = [*ATTENTIONS.broken(), *TASKS.broken()]
    counts = f"{len(ATTENTIONS.entries())} attentions, {len(TASKS.entries())} tasks"
    line(not broken, "registry", counts)
    if _installed_singly():
        line(None, "installation", "of an earlier version: new files are not listed until you "
             "install again (pip install -e .)")  # fmt: skip
    for entry in broken:
        line(False, entry.id, f"{entry.reason}; {entry.remedy}")
    console.print(shown)


def _installed_singly() -> bool:
    """Whether the installed metadata name our entries one by one instead of their packages."""
    return any(
        registry.sought.package not in {point.value for point in entry_points(group=registry.group)}
        for registry in (ATTENTIONS, TASKS)
    )


def _package(name: str, purpose: str, remedy: str) -> tuple[bool | None, str, str]:
    if importlib.util.find_spec(name) is None:
        return None, name, f"not installed ({purpose}); {remedy}"
    try:
        return True, name, version(name)
    except PackageNotFoundError:
        return True, name, "installed"
