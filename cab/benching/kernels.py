"""Whether torch's own kernels, and what is to be compiled, can run on this machine at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from cab.candidate import Candidate, candidate_of
from cab.errors import UsageError
from cab.kernel_names import KERNELS, of_kernel
from cab.patterns import Pattern
from cab.registries import ATTENTIONS

if TYPE_CHECKING:
    from runners.efficiency.settings import EfficiencySettings

_TOKENS = 32
_FLEX = "flex"


def require_kernels(
    baseline: str,
    attentions: Sequence[str],
    compiled: bool,
    patterns: Sequence[Pattern],
    sweep: Sequence[EfficiencySettings],
    device: str,
) -> list[str]:
    """Try each kernel that was asked for at every geometry; gives what a reader must know.

    Args:
        baseline: as the user named it.
        attentions: likewise.
        compiled: whether they are to be compiled.
        patterns: of the plan.
        sweep: its geometries.
        device: cpu or cuda.

    Raises:
        UsageError: one does not run here; says why.
    """
    asked = [name for name in dict.fromkeys((baseline, *attentions)) if name in KERNELS]
    if compiled or _FLEX in asked:
        _require_compiler(device, "--compile" if compiled else _FLEX)
    for name in asked:
        if name == _FLEX:  # a compiler, which takes half a minute, is asked once: in the process
            continue
        candidate = candidate_of(ATTENTIONS.resolve(of_kernel(name)))
        for settings in sweep:
            for pattern in patterns:
                _try(name, candidate, pattern, settings, device)
    return _about_flex(attentions, sweep[0].phases, device) if _FLEX in asked else []


def _about_flex(attentions: Sequence[str], phases: Sequence[str], device: str) -> list[str]:
    backward = "forward_backward"
    if device != "cpu" or backward not in phases:
        return []
    if tuple(phases) == (backward,) or _FLEX in attentions:
        raise UsageError("flex has no backward pass on a CPU; take --phase forward")
    return ["flex has no backward pass on a CPU: there nothing is compared with it"]


def _require_compiler(device: str, what: str) -> None:
    if device == "cuda":
        if find_spec("triton") is None:
            raise UsageError(f"{what} needs Triton on a GPU; run `cab doctor`")
        return
    named = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ([named] if named else ["g++", "clang++"])):
        raise UsageError(
            f"{what} needs a C++ compiler on a CPU: install g++, or name one in the variable CXX"
        )


def _try(
    name: str, candidate: Candidate, pattern: Pattern, settings: EfficiencySettings, device: str
) -> None:
    """One small call, forward and, where that is to be timed, backward."""
    import torch

    from cab.attention_contract import AttentionSpec

    backward = "forward_backward" in settings.phases
    module = candidate.build(AttentionSpec(pattern, settings.heads, settings.head_dim))
    shape = (1, settings.heads, _TOKENS, settings.head_dim)
    q, k, v = (
        torch.zeros(shape, device=device, dtype=settings.dtype, requires_grad=backward)
        for _ in range(3)
    )
    try:
        out = module.to(device)(q, k, v)
        if backward:
            out.sum().backward()
    except RuntimeError as error:
        told = str(error).strip().splitlines()[0].split(". ")[0].rstrip(".")
        others = ", ".join(sorted(set(KERNELS) - {name, _FLEX}))
        dtype = str(settings.dtype).removeprefix("torch.")
        raise UsageError(
            f"{name} does not run here ({device}, {dtype}, heads of {settings.head_dim}): {told}; "
            f"other kernels: {others}"
        ) from None
