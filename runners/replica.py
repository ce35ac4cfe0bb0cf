"""One of several processes that train a cell: ``python -m runners.replica``, the job on stdin.

It reports nothing: the process of rank 0 does. Where it fails, its last line of output says how.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

from cab.streams import make_legible
from runners.protocol import End, Job, end_with_parent


def main() -> None:
    """Train the cell on standard input together with the other ranks."""
    make_legible()
    line = sys.stdin.readline()
    end_with_parent(sys.stdin)
    try:
        from runners.worker import run_job

        run_job(Job.from_line(line), _silent)
    except BaseException as error:
        traceback.print_exc()
        print(End.of(error).to_line(), flush=True)
        os._exit(1)
    # Threads of a process group may still let go of tensors, which aborts an interpreter that is
    # being taken down (github.com/pytorch/pytorch/pull/179291).
    os._exit(0)


def _silent(**_: Any) -> None:
    pass


if __name__ == "__main__":
    main()
