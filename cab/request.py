"""A request, and the door at which its words become what they name.

Everything the user says by name is looked up here, once: attentions become candidates, task ids
tasks, words patterns and a scale. What comes after, planning above all, takes the `Lineup` and asks
no registry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cab.candidate import Candidate, candidate_of, choose_candidates
from cab.chosen_task import ChosenTask, choose_tasks
from cab.controls import BASELINE, CONTROLS, MEASURES, QUALITY
from cab.convolved.name import convolved_name
from cab.errors import UsageError
from cab.hybrids.formula import formula_of, parse
from cab.info import Kind, OptionValue, Scale
from cab.patterns import Pattern
from cab.plan_hashes import PlanHashes
from cab.registries import ALL, ATTENTIONS
from cab.regularisers import ADVERSARIAL, STEPS
from cab.track import check_scale


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for, in the words of the command line."""

    attentions: Sequence[str]
    """Ids, ``file.py:Class``, ``module:Class``, or ``all``"""
    patterns: Sequence[str]
    """Names, abbreviations, or ``all``"""
    hybrids: Sequence[str] = ()
    """Formulas, as in ``lla:1,linear-elu:3``"""
    conv: int = 0
    """Width of the convolution before candidates; 0: none"""
    tasks: Sequence[str] = ()
    """Ids; empty: every task that has slots of the pattern"""
    scale: str = "small"
    seeds: int = 3
    device: str = "cpu"
    measures: Sequence[str] = MEASURES
    options: Mapping[str, str] = field(default_factory=dict)
    preset: str = ""
    """Name of settings that the candidates declare, under ``options``; empty: their defaults"""
    data_dir: Path | None = None
    adversarial: float = 0.0
    """Size of the disturbance that candidates are trained against; 0: none"""
    steps: float = 1.0
    """Multiple of the recipe's steps that candidates and controls are trained for"""


@dataclass(frozen=True, kw_only=True)
class Lineup:
    """What a request stands for: everything that is crossed with everything else."""

    candidates: Sequence[Candidate]
    controls: Sequence[Candidate]
    """Those that are no candidates themselves, trained as their recipes say or, where they are to
    be compared at another number of steps, as stretched ones do"""
    baseline: Candidate
    """With its default options: what the slots of candidates are compared with"""
    patterns: Sequence[Pattern]
    """Those that at least one candidate claims"""
    tasks: Sequence[ChosenTask]
    """Empty where none is named and no quality is measured"""
    scale: Scale
    seeds: int
    device: str
    measures: Sequence[str]
    notes: Sequence[str]
    """What was asked for and is left out, a sentence each"""
    hashes: PlanHashes


def resolve_request(request: Request) -> Lineup:
    """Look up every name of a request.

    Raises:
        UsageError and its kinds: an id, pattern, scale, measure or option that does not exist, or
            an attention that supports none of the patterns.
    """
    check_scale(request.scale)
    scale = Scale(request.scale)
    if request.seeds < 1:
        raise UsageError(f"--seeds must be at least 1, not {request.seeds}")
    for measure in request.measures:
        if measure not in MEASURES:
            raise UsageError(f"unknown measure {measure!r}; choose from {', '.join(MEASURES)}")
    patterns = chosen_patterns(request.patterns)
    hashes = PlanHashes()
    names = _names(request)
    candidates, notes = choose_candidates(names, request.options, request.preset, hashes)
    if request.adversarial:
        if QUALITY not in request.measures:
            raise UsageError("--adversarial is a way of training: measure quality")
        training = {ADVERSARIAL: request.adversarial}
        candidates = [replace(candidate, training=training) for candidate in candidates]
    stretching = _stretching(request)
    if stretching:
        candidates = [replace(candidate, training=stretching) for candidate in candidates]
    tasks: list[ChosenTask] = []
    if QUALITY in request.measures or request.tasks or request.data_dir is not None:
        tasks = choose_tasks(request.tasks, scale, request.data_dir, hashes)
    for candidate in candidates:
        supported = [p for p in patterns if candidate.grade(p) is not None]
        if not supported and ALL not in request.attentions:
            candidate.require(patterns[0])
        notes += [
            f"{candidate.id} does not support {pattern}: left out"
            for pattern in patterns
            if pattern not in supported
        ]
    controls = {
        name: candidate_of(ATTENTIONS.resolve(name), hashes=hashes)
        for name in dict.fromkeys((BASELINE, *CONTROLS))
    }
    # What is trained as the controls are takes their place.
    chosen = {candidate.id for candidate in candidates if candidate.training == stretching}
    return Lineup(
        candidates=candidates,
        controls=[
            replace(controls[name], training=stretching) for name in CONTROLS if name not in chosen
        ],
        baseline=controls[BASELINE],
        patterns=[p for p in patterns if any(c.grade(p) is not None for c in candidates)],
        tasks=tasks,
        scale=scale,
        seeds=request.seeds,
        device=request.device,
        measures=request.measures,
        notes=notes,
        hashes=hashes,
    )


def _names(request: Request) -> list[str]:
    """What candidates are called, behind a convolution where one is asked for.

    Raises:
        UsageError: a formula is none, or a width.
    """
    parts = [parse(formula) for formula in request.hybrids]
    if not request.conv:
        return [*request.attentions, *request.hybrids]
    names = list(request.attentions)
    if ALL in names:
        every = ATTENTIONS.entries().values()
        names = [entry.id for entry in every if entry.info.kind is not Kind.MODIFIER]
    convolved = [
        formula_of([replace(part, name=convolved_name(part.name, request.conv)) for part in found])
        for found in parts
    ]
    return [*(convolved_name(name, request.conv) for name in names), *convolved]


def _stretching(request: Request) -> dict[str, OptionValue]:
    """What the training of all is given where it is to take another number of steps.

    Raises:
        UsageError: it does not go with the rest of the request.
    """
    if request.steps == 1.0:
        return {}
    if QUALITY not in request.measures:
        raise UsageError("--steps is a way of training: measure quality")
    if request.adversarial:
        raise UsageError("--steps and --adversarial do not go together; run one after the other")
    return {STEPS: request.steps}


def chosen_patterns(words: Sequence[str]) -> list[Pattern]:
    """Patterns of names and abbreviations, or all.

    Raises:
        UsageError: there is no such pattern.
    """
    if ALL in words:
        return list(Pattern)
    return list(dict.fromkeys(Pattern.parse(word) for word in words))
