"""Words of the command line that several commands share."""

from __future__ import annotations

from cab.errors import UsageError


def parse_options(words: list[str]) -> dict[str, str]:
    """``["ridge=0.1"]`` to ``{"ridge": "0.1"}``.

    Raises:
        UsageError: a word is not of the form name=value.
    """
    options = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise UsageError(f"--option takes name=value, not {word!r}")
        options[name.strip()] = value.strip()
    return options


def parse_device(name: str) -> str:
    """``auto`` to cuda where there is one, else cpu.

    Raises:
        UsageError: no such device, or none on this machine.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"unknown device {name!r}; choose from auto, cpu, cuda")
    if name == "cpu":
        return name
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if name == "cuda":
        raise UsageError("no CUDA device here; run `cab doctor` to see what torch finds")
    return "cpu"
