"""One cell in a process of its own; `runners.protocol` says how it is told what, and tells it.

A worker is forked by `runners.executors.server`, or started anew as
``python -P -m runners.worker EVENTS_FD``. What the cell prints goes to the log.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import IO

from cab.schema import Status
from cab.streams import make_legible
from runners.protocol import REPLAY, End, Job, Sender, end_with_parent
from runners.report import Report


def main() -> None:
    """Do the job on standard input."""
    work(int(sys.argv[1]), sys.stdin)


def work(events_fd: int, jobs: IO[str]) -> None:
    """Do the next job; events go to a file descriptor.

    Args:
        events_fd: open for writing.
        jobs: one line, then open for as long as the parent lives.
    """
    make_legible()
    sender = Sender(events_fd)
    job = Job.from_line(jobs.readline())
    end_with_parent(jobs)

    def replica_failed(end: End) -> None:
        # This process may wait for the lost one for ever.
        sender.send(end)
        os._exit(1)

    try:
        if job.replicas > 1 and job.cell.kind == "quality":
            from runners.replicas import start_others

            start_others(job, replica_failed)
        run_job(job, sender.report)
    except BaseException as error:
        traceback.print_exc()
        sender.send(End.of(error))
    else:
        sender.send(End(Status.OK))
    sender.close()


def run_job(job: Job, report: Report) -> None:
    """Measure one cell in this process.

    Raises:
        RegistrationError: the code is not what the cell was planned with.
    """
    import torch

    from runners.same_code import require_same_code

    cell = job.cell
    torch.set_num_threads(job.threads)
    # For processes that this one starts.
    os.environ |= {"OMP_NUM_THREADS": str(job.threads), "MKL_NUM_THREADS": str(job.threads)}
    require_same_code(cell)
    if cell.kind == "quality":
        from runners.quality import run_quality
        from runners.witness.replay import replay

        torch.use_deterministic_algorithms(True, warn_only=True)
        (replay if job.action == REPLAY else run_quality)(cell, report)
    else:
        from runners.efficiency.reads import run_with_density

        run_with_density(cell, report)


if __name__ == "__main__":
    main()
