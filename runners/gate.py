"""Before minutes are spent on a candidate: does it keep the contract on its patterns?

The project's own entries are held to it by the test suite. A candidate from outside is examined
once for each pattern and set of options, before anything is trained, in a process of its own
(`runners.probe`), since it may hang or die. Cells of what has passed say so to their workers
through the environment, by the hash of the code that was examined; a worker that finds other code,
or no word, examines it itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cab.cell import Cell
from cab.checks import run_checks
from cab.code_hash import attention_hash
from cab.hybrids.formula import is_formula, parse
from cab.options import resolve_options
from cab.own_code import safe_environment, safe_python
from cab.patterns import Pattern
from cab.registries import ATTENTIONS
from cab.regularisers import of_mechanism
from runners.outcome import InvalidError

PATIENCE = 300.0
"""Seconds that an examination on one pattern may take"""

_OWN_PACKAGE = "attentions."
_PASSED = "CAB_CHECKED"


@dataclass(frozen=True)
class Rejection:
    """A candidate that breaks the contract on a pattern."""

    attention: str
    target: str
    pattern: str
    violations: Mapping[str, str]
    """By the name of the rule"""

    def lines(self) -> list[str]:
        """One for each broken rule."""
        return [
            f"{self.attention} breaks the attention contract on {self.pattern}: {rule}: {what}"
            for rule, what in self.violations.items()
        ]


def require_contract(cell: Cell) -> None:
    """Hold a cell's candidate to the attention contract, unless whoever planned it has.

    Raises:
        InvalidError: it breaks a rule; names the rule and the size of the violation.
    """
    for foreign in _from_outside(cell):
        same_code = attention_hash(foreign.target, foreign.kind) == foreign.attention_hash
        if same_code and _key(foreign) in os.environ.get(_PASSED, "").split(","):
            continue
        candidate = ATTENTIONS.class_at(foreign.target)
        options = of_mechanism(foreign.options)
        violations = run_checks(candidate, Pattern.parse(foreign.pattern), options)
        if violations:
            first = "; ".join(f"{rule}: {what}" for rule, what in violations.items())
            raise InvalidError(f"breaks the attention contract on {cell.pattern} ({first})")


def examine_candidates(cells: Sequence[Cell], patience: float = PATIENCE) -> list[Rejection]:
    """Examine every candidate from outside that the cells measure, once for each pattern and set of
    options; what passes is not examined again by workers that inherit this environment.

    Args:
        cells: that are about to run.
        patience: seconds for one pattern, after which a candidate is rejected.
    """
    waiting: dict[str, dict[str, Cell]] = {}
    for cell in cells:
        for foreign in _from_outside(cell):
            waiting.setdefault(_key(foreign), {})[cell.attention] = foreign
    rejected = []
    for same in waiting.values():  # alone, and as a part of hybrids
        cell = next(iter(same.values()))
        violations = _examine(cell, patience)
        if not violations:
            note_passed(cell)
            continue
        rejected += [Rejection(name, cell.target, cell.pattern, violations) for name in same]
    return rejected


def to_examine(cells: Sequence[Cell]) -> list[str]:
    """Names and patterns of the candidates from outside."""
    return list(
        dict.fromkeys(f"{c.attention} on {c.pattern}" for c in cells if list(_from_outside(c)))
    )


def note_passed(cell: Cell) -> None:
    """Let workers of this process know that a cell's candidate keeps the contract."""
    known = [word for word in os.environ.get(_PASSED, "").split(",") if word]
    os.environ[_PASSED] = ",".join(dict.fromkeys([*known, _key(cell)]))


def _examine(cell: Cell, patience: float) -> dict[str, str]:
    """Violations by the name of the rule, as another process finds them."""
    reader, writer = os.pipe()
    with subprocess.Popen(
        safe_python("-m", "runners.probe", str(writer)),
        env=safe_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(writer,),
        start_new_session=True,
    ) as process:
        os.close(writer)
        try:
            assert process.stdin is not None
            process.stdin.write(cell.to_json().encode() + b"\n")
            process.stdin.flush()
            words = _read(reader, patience)
        except BrokenPipeError:
            words = b""
        finally:
            os.close(reader)
            _end(process)
    if words is None:
        return {"time": f"the examination had not ended after {patience:.0f} s"}
    if words.count(b"\n") > 1:
        return {"end": "wrote into the result of its own examination"}
    try:
        found = json.loads(words)
        return {str(rule): str(what) for rule, what in found.items()}
    except (ValueError, AttributeError):
        return {"end": f"the process that examined it ended with code {process.returncode}"}


def _read(reader: int, patience: float) -> bytes | None:
    """Everything up to the end of the stream; None if that takes too long."""
    words, deadline = b"", time.monotonic() + patience
    while True:
        if not select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return None
        chunk = os.read(reader, 1 << 16)
        if not chunk:
            return words
        words += chunk


def _end(process: subprocess.Popen[bytes]) -> None:
    """Nothing that it started goes on."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _from_outside(cell: Cell) -> Iterator[Cell]:
    """What of a cell's candidate is to be examined: itself, or of a hybrid each of its parts, as
    cells of their own.
    """
    if not is_formula(cell.target):
        if not is_own(cell.target):
            yield cell
        return
    for part in parse(cell.target):
        if is_own(part.name):
            continue
        yield replace(
            cell,
            target=part.name,
            options=resolve_options(ATTENTIONS.resolve(part.name).info, part.options),
            attention_hash=attention_hash(part.name, cell.kind),
        )


def is_own(target: str) -> bool:
    """Whether a class comes with the suite, whose tests hold it to the contract."""
    return target.startswith(_OWN_PACKAGE)


def _key(cell: Cell) -> str:
    content = [cell.attention_hash, cell.pattern, of_mechanism(cell.options)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]
