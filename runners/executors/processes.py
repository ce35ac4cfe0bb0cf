"""Worker processes: forked from a warm server, or started anew."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from typing import IO, Protocol

from cab.own_code import safe_environment, safe_python

_LOST = -signal.SIGKILL


class Process(Protocol):
    """A process of its own process group."""

    def wait(self, timeout: float) -> int | None:
        """Its exit code, negative for a signal; None where it has not ended by then."""

    def kill(self) -> None:
        """End it and everything that it has started; returns when it has ended."""


class Fresh:
    """A Python process that imports everything itself."""

    def __init__(self, events: int, jobs: int, log: IO[bytes], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            safe_python("-m", "runners.worker", str(events)),
            stdin=jobs,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(events,),
            env=safe_environment(**environment),
            # Ctrl-C reaches the parent alone, which then ends its workers in order.
            start_new_session=True,
        )

    def wait(self, timeout: float) -> int | None:
        """See `Process`."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """See `Process`."""
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Forked:
    """A child of a `Server`."""

    def __init__(self, server: Server, pid: int) -> None:
        self._server = server
        self._pid = pid

    def wait(self, timeout: float) -> int | None:
        """See `Process`."""
        return self._server.exit_code(self._pid, timeout)

    def kill(self) -> None:
        """See `Process`."""
        if self._server.exit_code(self._pid, 0.0) is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.killpg(self._pid, signal.SIGKILL)
            self._server.exit_code(self._pid, 10.0)


class Server:
    """The other side of `runners.executors.server`; started with the first fork."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._buffer = b""
        self._codes: dict[int, int] = {}

    def fork(self, events: int, jobs: int, log: IO[bytes]) -> Forked | None:
        """A new worker; None where the server does not answer."""
        try:
            connection = self._connected()
            socket.send_fds(connection, [b"f"], [jobs, events, log.fileno()])
            while True:
                words = self._line(None)
                if words is None:
                    return None
                if words[0] == "started":
                    return Forked(self, int(words[1]))
                self._note(words)
        except OSError:
            return None

    def exit_code(self, pid: int, timeout: float) -> int | None:
        """Of a worker; None where it has not ended within so many seconds."""
        until = time.monotonic() + timeout
        while pid not in self._codes:
            try:
                words = self._line(max(0.0, until - time.monotonic()))
            except (OSError, ConnectionError):
                return _LOST
            if words is None:
                if self._process is None or self._process.poll() is not None:
                    return _LOST
                return None
            self._note(words)
        return self._codes[pid]

    def close(self) -> None:
        """End the server, and with it every worker that is left."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _connected(self) -> socket.socket:
        if self._connection is None:
            self._connection, theirs = socket.socketpair()
            # One thread each: the pools of a forked process are made after the fork.
            environment = safe_environment(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
            self._process = subprocess.Popen(
                safe_python("-m", "runners.executors.server", str(theirs.fileno())),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
            theirs.close()
        return self._connection

    def _line(self, timeout: float | None) -> list[str] | None:
        """The next line of the server; None where there is none in time, or the server is gone."""
        assert self._connection is not None
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._connection], [], [], timeout)
            if not ready:
                return None
            received = self._connection.recv(4096)
            if not received:
                return None
            self._buffer += received
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode().split()

    def _note(self, words: list[str]) -> None:
        if words[0] == "ended":
            self._codes[int(words[1])] = int(words[2])
