"""One of several processes that train a cell: ``python -m runners.replica``, the cell on stdin.

It reports nothing: the process of rank 0 does. Where it fails, its last line of output says how.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from typing import Any

from cab.cell import Cell


def main() -> None:
    """Train the cell on standard input together with the other ranks."""
    cell = Cell.from_json(sys.stdin.readline())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        from runners.worker import run_cell

        run_cell(cell, _silent)
    except BaseException as error:
        from runners.outcome import describe, status_of

        traceback.print_exc()
        print(json.dumps({"status": status_of(error).value, "message": describe(error)}))
        sys.stdout.flush()
        os._exit(1)


def _silent(**_: Any) -> None:
    pass


def _die_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
