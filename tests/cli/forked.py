"""``cab`` in a process that is forked from one which has imported everything.

The same program on the same words as ``python -m cab``, without the seconds that importing torch
takes. What an interpreter does at its start (paths, entry points, encodings) is that of the server.
"""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["torch", "pandas", "cab.cli.app", "runners.planner", "runners.session"]
)


def run(words, folder, timeout, environment):
    """The finished process, as `subprocess.run` gives it."""
    out, err = (folder.parent / f"{folder.name}.{name}" for name in ("stdout", "stderr"))
    process = FORKS.Process(target=_main, args=(words, folder, environment, out, err))
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        raise subprocess.TimeoutExpired(words, timeout)
    return subprocess.CompletedProcess(words, process.exitcode, out.read_text(), err.read_text())


def _main(words: list[str], folder: Path, environment: dict[str, str], out: Path, err: Path):
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, path, name in ((1, out, "stdout"), (2, err, "stderr")):
        with path.open("w") as file:
            os.dup2(file.fileno(), number)
        setattr(sys, name, os.fdopen(number, "w", closefd=False))
    sys.argv = ["cab", *words]
    from cab.cli.app import main

    main()
