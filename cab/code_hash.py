"""Hashes of the code that determines a number.

A changed mechanism must never reuse old numbers, and a reworded comment, a moved module or a new
chart must not throw away a night of training. So a hash covers the definitions that a number
depends on and no others (`cab.definitions`): from a class or a function, every name that is used,
across modules. Info records are not part of it, nor is anything that only draws, analyses or
prints.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

from cab.convolved.name import parse_target
from cab.definitions.closure import Closure, Reached
from cab.definitions.names import look_again
from cab.hybrids.formula import is_formula, parse
from cab.info import TaskInfo
from cab.plan_cache import PlanCache
from cab.regularisers import ADVERSARIAL, STEPS

TRAINING_METHODS = frozenset(
    {
        "forward", "auxiliary_loss", "switches", "calibrates", "parameter_groups", "state_size",
        "wire",
    }
)  # fmt: skip
"""What training and testing a model use of `cab.Attention`, and of `runners.wiring.Wired`"""

MEASURING_METHODS = TRAINING_METHODS | {
    "reference", "prefill", "step", "decodes", "step_takes_context", "flops",
}  # fmt: skip
"""What measuring cost uses of it"""

TASK_METHODS = frozenset(
    {
        "build", "training_batch", "loss", "evaluate", "references", "recipe", "data_hash",
        "parameter_budget", "length", "dataset", "backbone",
        "evaluation_seed",
    }
)  # fmt: skip
"""What training and testing use of `cab.Task`"""

HYBRID = "cab.hybrids.module:hybrid_class"
"""What chooses the part of a hybrid for a layer"""
CONVOLVED = "cab.convolved.module:ConvolvedAttention"
"""What puts a convolution before a mechanism"""
EXPERIMENT = "runners.experiment:Experiment"
"""What builds, trains and tests a model"""
EXPERIMENT_STAGES = ("build", "train", "modify", "test", "references")
"""Its methods that do so"""
ADVERSARIAL_EXPERIMENT = "runners.adversarial:AdversarialExperiment"
"""The same against an adversary"""
STRETCHED_EXPERIMENT = "runners.stretched:StretchedExperiment"
"""The same for a multiple of the recipe's steps"""
EFFICIENCY = "runners.efficiency.runner:run_efficiency"
"""What measures cost"""
_RUNNERS = {
    "quality": EXPERIMENT,
    ADVERSARIAL: ADVERSARIAL_EXPERIMENT,
    STEPS: STRETCHED_EXPERIMENT,
    "efficiency": EFFICIENCY,
}


def attention_hash(target: str, kind: str, cache: PlanCache | None = None) -> str:
    """Hash of a mechanism, ``module:Class`` or ``/path/file.py:Class``. Of a hybrid, whose target
    is a formula of these: of its parts in their order, with their options and layers. Of one
    behind a convolution: of both, with the width.

    Args:
        target: where the class lies.
        kind: quality or efficiency; the latter uses more of a mechanism.
        cache: of hashes that were computed before.
    """
    used = TRAINING_METHODS if kind == "quality" else MEASURING_METHODS
    if not is_formula(target):
        convolved = parse_target(target)
        if convolved is None:
            return code_hash(target, used, cache)
        inner, width = convolved
        words = [code_hash(CONVOLVED, used, cache), attention_hash(inner, kind, cache), str(width)]
        return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]
    words = [code_hash(HYBRID, (), cache)]
    words += [
        f"{attention_hash(part.name, kind, cache)} {part.layers} {sorted(part.options.items())}"
        for part in parse(target)
    ]
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]


def task_hash(target: str, info: TaskInfo, cache: PlanCache | None = None) -> str:
    """Hash of a task: its data, backbone, recipe and metrics, which of them chooses the checkpoint,
    and whether seeds are tested on the same problems.
    """
    first = info.metrics[0]
    words = f"{code_hash(target, TASK_METHODS, cache)} {first.name} {first.higher_is_better}"
    if info.fresh_evaluation:
        words += " fresh evaluation"
    return hashlib.sha256(words.encode()).hexdigest()[:16]


def runner_hash(kind: str, cache: PlanCache | None = None) -> str:
    """Hash of what trains and tests (quality, or a regulariser's name), or of what measures cost
    (efficiency).
    """
    return code_hash(_RUNNERS[kind], EXPERIMENT_STAGES, cache)


def code_hash(target: str, used: Collection[str] = (), cache: PlanCache | None = None) -> str:
    """Hash of the code behind ``module:name``, ``/path/file.py:name``, or of a whole ``module``.

    Args:
        target: where the definition lies.
        used: methods that callers use of it, where it is a class.
        cache: of hashes that were computed before.
    """
    if cache is None:
        return reached(target, used).digest()
    closure = _closure(target)

    def compute() -> tuple[str, dict[str, Path]]:
        found = reached(target, used)
        return found.digest(), found.files | {str(path): path for path in found.data.values()}

    return cache.code(f"{target} {' '.join(sorted(used))}", compute, closure.names.find)


def reached(target: str, used: Collection[str] = ()) -> Reached:
    """Every definition that one uses, itself included."""
    look_again()
    closure = _closure(target)
    location, _, name = target.rpartition(":")
    if not location:
        closure.reach_module(name)
    else:
        closure.reach(Path(location) if location.endswith(".py") else location, name, used)
    return closure.reached


def _closure(target: str) -> Closure:
    location, _, name = target.rpartition(":")
    if location.endswith(".py"):
        return Closure(folder=Path(location).resolve().parent)
    return Closure(own={(location or name).split(".")[0]})
