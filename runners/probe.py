"""A candidate's examination in a process of its own: ``python -P -m runners.probe RESULT_FD``.

A cell comes as a line of JSON on standard input, which stays open: when it closes, the parent is
gone and the process ends. The violations go to the file descriptor as a line of JSON, by the name
of the rule.
"""

from __future__ import annotations

import json
import os
import sys

from cab.streams import make_legible
from runners.protocol import end_with_parent


def main() -> None:
    """Examine the candidate of the cell on standard input."""
    make_legible()
    result = int(sys.argv[1])
    line = sys.stdin.readline()
    end_with_parent(sys.stdin)
    violations = _violations(line)
    os.write(result, json.dumps(violations).encode() + b"\n")
    # Whatever the candidate has left running ends here.
    os._exit(0)


def _violations(line: str) -> dict[str, str]:
    import torch

    from cab.cell import Cell
    from cab.checks import run_checks
    from cab.errors import CabError
    from cab.patterns import Pattern
    from cab.registries import ATTENTIONS
    from cab.regularisers import of_mechanism

    torch.set_num_threads(1)
    cell = Cell.from_json(line)
    try:
        cls = ATTENTIONS.class_at(cell.target)
    except CabError as error:
        return {"import": str(error)}
    return run_checks(cls, Pattern.parse(cell.pattern), of_mechanism(cell.options))


if __name__ == "__main__":
    main()
