"""Words of the command line that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from cab.errors import UsageError
from cab.locations import DEFAULT_RESULTS


def parse_options(words: list[str]) -> dict[str, str]:
    """``["ridge=0.1"]`` to ``{"ridge": "0.1"}``.

    Raises:
        UsageError: a word is not of the form name=value.
    """
    return parse_pairs("--option", words)


def parse_pairs(flag: str, words: Sequence[str]) -> dict[str, str]:
    """Words of the form ``name=value``, as a flag takes them.

    Raises:
        UsageError: a word is not of that form.
    """
    options = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise UsageError(f"{flag} takes name=value, not {word!r}")
        options[name.strip()] = value.strip()
    return options


def require_folder(out: Path) -> None:
    """A results folder that the user names is there; the default one may be yet to come.

    Raises:
        UsageError: names the folder.
    """
    if out != DEFAULT_RESULTS and not out.exists():
        raise UsageError(f"there is no results folder {out}; name one with --out")


def parse_device(name: str) -> str:
    """``auto`` to cuda where there is one, else cpu.

    Raises:
        UsageError: no such device, or none on this machine.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"unknown device {name!r}; choose from auto, cpu, cuda")
    if name == "cpu" or (name == "auto" and not _may_have_gpu()):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if name == "cuda":
        raise UsageError("no CUDA device here; run `cab doctor` to see what torch finds")
    return "cpu"


def _may_have_gpu() -> bool:
    """Whether torch is worth asking, which takes seconds to import. On Linux a driver that runs has
    a device file: NVIDIA's own, that of its boards, of Windows' subsystem, or AMD's.
    """
    if sys.platform != "linux":
        return True
    devices = Path("/dev")
    return any(any(devices.glob(name)) for name in ("nvidia*", "nvhost*", "nvmap", "dxg", "kfd"))
