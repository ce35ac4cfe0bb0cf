"""One cell in a process of its own: ``python -m runners.worker EVENTS_FD``.

The cell comes as one line of JSON on standard input, which then stays open: when it closes, the
parent is gone and the worker ends at once, so nothing keeps running after a kill. Events go to the
file descriptor as lines of JSON: ``{"done": 0.4, "loss": 1.2}``, with ``rows`` and ``artifacts``
where there are any, and last ``{"status": "ok"}`` or another end with a message. What the cell
prints goes to the log.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from typing import Any

from cab.artifact import Artifact
from cab.cell import Cell
from cab.schema import Row, Status
from runners.artifacts import to_json
from runners.report import Report


def main() -> None:
    """Run the cell on standard input."""
    events = os.fdopen(int(sys.argv[1]), "w", buffering=1)
    cell = Cell.from_json(sys.stdin.readline())
    threading.Thread(target=_die_with_parent, daemon=True).start()

    def send(event: dict[str, Any]) -> None:
        print(json.dumps(event, default=str), file=events)

    def report(
        *,
        done: float,
        loss: float | None = None,
        rows: list[Row] | None = None,
        artifacts: list[Artifact] | None = None,
    ) -> None:
        send(
            {
                "done": done,
                "loss": loss,
                "rows": [row.as_dict() for row in rows or []],
                "artifacts": [to_json(artifact) for artifact in artifacts or []],
            }
        )

    def replica_failed(status: str, message: str) -> None:
        # This process may wait for the lost one for ever.
        send({"status": status, "message": message})
        os._exit(1)

    try:
        replicas = int(os.environ.get("CAB_REPLICAS", "1"))
        if replicas > 1 and cell.kind == "quality":
            from runners.replicas import start_others

            start_others(cell, replicas, replica_failed)
        run_cell(cell, report)
    except BaseException as error:
        from runners.outcome import describe, status_of

        traceback.print_exc()
        send({"status": status_of(error).value, "message": describe(error)})
    else:
        send({"status": Status.OK.value})


def run_cell(cell: Cell, report: Report) -> None:
    """Measure one cell in this process."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if cell.kind == "quality":
        from runners.quality import run_quality

        torch.use_deterministic_algorithms(True, warn_only=True)
        run_quality(cell, report)
    else:
        from runners.efficiency.runner import run_efficiency

        run_efficiency(cell, report)


def _die_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
