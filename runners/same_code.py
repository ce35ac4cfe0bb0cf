"""A worker measures the code that was planned, or nothing."""

from __future__ import annotations

from cab.cell import Cell
from cab.code_hash import attention_hash, runner_hash, task_hash
from cab.controls import BASELINE
from cab.errors import RegistrationError
from cab.own_code import ROOT, require_own_packages
from cab.registries import TASKS
from cab.regularisers import runner_of


def require_same_code(cell: Cell) -> None:
    """Compare the code that this process finds with the hashes of a cell.

    Raises:
        RegistrationError: code differs, because it was edited after the plan was made or because
            this process imports another copy; says which and where it lies.
    """
    require_own_packages()
    found = {
        f"attention {cell.attention}": (
            attention_hash(cell.target, cell.kind),
            cell.attention_hash,
        ),
        BASELINE: (
            attention_hash(cell.softmax_target, cell.kind),
            cell.softmax_hash,
        ),
        "runners": (runner_hash(runner_of(cell.kind, cell.options)), cell.runner_hash),
    }
    if cell.task:
        info = TASKS.class_at(cell.task_target).info
        found[f"task {cell.task}"] = (task_hash(cell.task_target, info), cell.task_hash)
    other = [name for name, (here, planned) in found.items() if here != planned]
    if other:
        raise RegistrationError(
            f"the code of {', '.join(other)} is not what was planned: it was edited meanwhile, or "
            f"this worker imports another copy (suite: {ROOT}; attention: {cell.target}); run the "
            "command again"
        )
