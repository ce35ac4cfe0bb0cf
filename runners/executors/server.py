"""A process that has torch loaded and forks workers: ``python -P -m runners.executors.server FD``.

Importing what a quality cell needs takes seconds, a good share of a cell of half a minute; a fork
takes milliseconds. The server itself computes nothing, so that no thread pool and no device is
alive when it forks.

Over the socket FD come requests, one byte with three file descriptors: the worker's standard input,
its events, its log. Answers are lines (`runners.protocol`): that it was started and later that it
has ended. When the socket closes, the workers are killed and the server ends.
"""

from __future__ import annotations

import array
import contextlib
import os
import select
import signal
import socket
import sys
import traceback

from runners.protocol import ended, started

_DESCRIPTORS = 3
_PAUSE_SECONDS = 0.05
"""How often the ends of workers are looked for"""


def main() -> None:
    """Serve until the socket closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    connection = socket.socket(fileno=int(sys.argv[1]))
    _load()
    workers: set[int] = set()
    try:
        while True:
            ready, _, _ = select.select([connection], [], [], _PAUSE_SECONDS if workers else None)
            if ready:
                descriptors = _receive(connection)
                if not descriptors:
                    return
                pid = _fork(connection, descriptors)
                workers.add(pid)
                connection.sendall(started(pid))
            for pid, code in _ended(workers):
                connection.sendall(ended(pid, code))
    except OSError:  # the parent is gone
        return
    finally:
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.killpg(pid, signal.SIGKILL)


def _load() -> None:
    """What every cell imports; an optimiser and a traced call import torch._dynamo, which takes
    longer than many a cell's measuring.
    """
    import torch._dynamo

    import runners.quality
    import runners.worker
    from cab.code_hash import runner_hash

    assert torch._dynamo
    assert runners.quality
    assert runners.worker
    runner_hash("quality")  # the parsed source stays in memory


def _receive(connection: socket.socket) -> list[int]:
    """The descriptors of one request; empty: the parent is gone."""
    size = array.array("i").itemsize * _DESCRIPTORS
    message, ancillary, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(size))
    if not message:
        return []
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    return list(descriptors)


def _fork(connection: socket.socket, descriptors: list[int]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            connection.close()
            _become_worker(*descriptors)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):  # a candidate may have closed or replaced them
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    # The parent may ask for its group at once; the worker may have made it, or be gone.
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)
    for descriptor in descriptors:
        os.close(descriptor)
    return pid


def _become_worker(jobs: int, events: int, log: int) -> None:
    from runners.worker import work

    with contextlib.suppress(OSError):  # the server was first
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(jobs, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for descriptor in (jobs, log):
        os.close(descriptor)
    sys.stdin = os.fdopen(0)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    work(events, sys.stdin)


def _ended(workers: set[int]) -> list[tuple[int, int]]:
    """Workers that have ended since, with their exit codes."""
    found = []
    for pid in list(workers):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            workers.discard(pid)
            found.append((pid, os.waitstatus_to_exitcode(status)))
    return found


if __name__ == "__main__":
    main()
