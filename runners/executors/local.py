"""The executor on this machine: every cell in a worker process of its own.

Quality cells share the machine, one thread each on a CPU, which trains more cells an hour than one
cell on all cores; efficiency cells run alone, because a neighbour would be measured too.
"""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, ClassVar

from cab.artifact import Artifact
from cab.cell import Cell
from cab.schema import Row, Status
from runners.environment import available_cores
from runners.executors.events import Ended, Event, Progressed, Started
from runners.executors.memory_kills import has_killed, memory_kills
from runners.executors.options import ExecutorOption, OptionValue, resolve
from runners.executors.processes import Fresh, Process, Server
from runners.protocol import MEASURE, REPLAY, End, Job, Receiver

TIMEOUT = 900.0
_EXIT_SECONDS = 10.0
"""What a worker may take to exit once it has nothing to tell"""


class LocalExecutor:
    """Runs cells in worker processes, several at a time."""

    OPTIONS: ClassVar[tuple[ExecutorOption, ...]] = (
        ExecutorOption("workers", 0, "quality cells at a time; 0: one per core, or per GPU"),
        ExecutorOption("threads", 1, "torch threads of a quality cell on a CPU", positive=True),
        ExecutorOption("timeout", TIMEOUT, "seconds after which a cell is given up", positive=True),
        ExecutorOption("replicas", 1, "processes that train one cell, one per GPU", positive=True),
        ExecutorOption("action", MEASURE, "what workers do", choices=(MEASURE, REPLAY)),
    )

    def __init__(
        self,
        workers: int = 0,
        threads: int = 1,
        timeout: float = TIMEOUT,
        replicas: int = 1,
        action: str = MEASURE,
    ) -> None:
        """Choose how the machine is shared.

        Args:
            workers: quality cells at a time; 0: one per core on a CPU, one per GPU.
            threads: torch threads of a quality cell on a CPU. Efficiency cells get all cores.
            timeout: seconds after which a cell is ended as ``timeout``.
            replicas: processes that train one quality cell together, each on a GPU of its own.
            action: measure, or replay: what workers do with a cell.
        """
        self._workers = workers
        self._threads = threads
        self._timeout = timeout
        self._replicas = replicas
        self._action = action

    @classmethod
    def from_options(cls, options: Mapping[str, OptionValue]) -> LocalExecutor:
        """See `Executor.from_options`."""
        chosen = resolve("local", cls.OPTIONS, options)
        return cls(
            workers=int(chosen["workers"]),
            threads=int(chosen["threads"]),
            timeout=float(chosen["timeout"]),
            replicas=int(chosen["replicas"]),
            action=str(chosen["action"]),
        )

    def run(self, cells: Sequence[Cell], on_event: Callable[[Event], None]) -> None:
        """See `Executor.run`; quality cells first, then efficiency cells one by one."""
        quality = [cell for cell in cells if cell.kind == "quality"]
        alone = [cell for cell in cells if cell.kind != "quality"]
        self._run(quality, self.width(quality), self._threads, on_event)
        self._run(alone, 1, available_cores(), on_event)

    def width(self, cells: Sequence[Cell]) -> int:
        """Quality cells that run at a time."""
        if self._workers:
            return self._workers
        if any(cell.device == "cuda" for cell in cells):
            import torch

            return max(1, torch.cuda.device_count() // self._replicas)
        return max(1, available_cores() // (self._threads * self._replicas))

    def _run(
        self, cells: Sequence[Cell], width: int, threads: int, on_event: Callable[[Event], None]
    ) -> None:
        pending = [Job(cell, threads, self._replicas, self._action) for cell in cells]
        running: dict[int, _Worker] = {}
        server = Server()
        with selectors.DefaultSelector() as selector:
            try:
                while pending or running:
                    while pending and len(running) < width:
                        place = next(i for i in range(width) if i not in running)
                        worker = _Worker(pending.pop(0), place, server)
                        running[place] = worker
                        selector.register(worker.events, selectors.EVENT_READ, place)
                        on_event(Started(worker.cell))
                    for key, _ in selector.select(timeout=0.2):
                        worker = running[key.data]
                        for event in worker.read():
                            on_event(event)
                    for place, worker in list(running.items()):
                        if worker.seconds > self._timeout:
                            worker.give_up(self._timeout)
                        worker.end_if_idle()
                        if worker.finished:
                            selector.unregister(worker.events)
                            del running[place]
                            on_event(worker.close())
            finally:
                for worker in running.values():
                    worker.kill()
                server.close()


class _Worker:
    """One worker process and what it has reported."""

    def __init__(self, job: Job, place: int, server: Server) -> None:
        self.cell = job.cell
        self.rows: list[Row] = []
        self.artifacts: list[Artifact] = []
        self.finished = False
        self._end: End | None = None
        self._told = math.inf
        """When it told its end"""
        self._whole = False
        """Whether all that the cell measures has been received"""
        self._received = Receiver()
        self._began = time.monotonic()
        self._kills = memory_kills()
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        reader, writer = os.pipe()
        given, self._jobs = os.pipe()
        self._process = _start(job, writer, given, self._log, place, server)
        os.close(writer)
        os.close(given)
        os.set_blocking(reader, False)
        self.events = os.fdopen(reader, "rb", buffering=0)
        # The pipe stays open: a worker ends when it closes.
        with contextlib.suppress(BrokenPipeError):  # dead already: its exit code says how
            os.write(self._jobs, job.to_line().encode() + b"\n")

    @property
    def seconds(self) -> float:
        """Since the process was started."""
        return time.monotonic() - self._began

    def read(self) -> list[Progressed]:
        """Take in what the worker has reported since the last call."""
        chunk = self.events.read(1 << 20)
        if chunk is None:
            return []
        if not chunk:
            self.finished = True
        if not chunk or self._end is not None:  # what it says of its exit changes no result
            return []
        progress = []
        try:
            for message in self._received.take(chunk):
                if isinstance(message, End):
                    self._end, self._told = message, time.monotonic()
                    break
                self.rows += message.rows
                self.artifacts += message.artifacts
                self._whole = message.done >= 1.0 and bool(self.rows)
                progress.append(Progressed(self.cell, message.done, message.loss))
        except ValueError as error:  # the candidate wrote to its worker's descriptor
            self._give_up(End(Status.ERROR, str(error)))
            return []
        return progress

    def end_if_idle(self) -> None:
        """End a worker that has told its end and does not exit."""
        if time.monotonic() - self._told > _EXIT_SECONDS:
            self.kill()
            self.finished = True

    def give_up(self, timeout: float) -> None:
        """End a worker that takes too long."""
        self._give_up(End(Status.TIMEOUT, f"not finished after {timeout:.0f} s"))

    def _give_up(self, end: End) -> None:
        """End it; the end counts unless it had told all of its result or its own end before."""
        self.kill()
        if self._end is None:
            self._end = End(Status.OK) if self._whole else end
        self.finished = True

    def kill(self) -> None:
        """End the process and everything that it started."""
        self._process.kill()

    def close(self) -> Ended:
        """Reap the process; a worker that died without a word gets its end from its exit code,
        unless its whole result was received before.
        """
        seconds = self.seconds
        code = self._process.wait(_EXIT_SECONDS)
        if code is None:
            self._process.kill()
        end = self._end
        if end is None and self._whole:
            end = End(Status.OK)
        if end is None:
            by_kernel = has_killed(self._kills, memory_kills())
            end = _end_of(code, by_kernel, self._log_tail())
        self.events.close()
        os.close(self._jobs)
        self._log.close()
        return Ended(self.cell, end.status, end.message, self.rows, seconds, self.artifacts)

    def _log_tail(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else ""


def _start(job: Job, events: int, jobs: int, log: IO[bytes], place: int, server: Server) -> Process:
    """A quality cell on a CPU is forked from the server. Others have a process that imports
    everything itself: a device must not be alive when a process forks, and what is timed has a
    machine of its own.
    """
    if job.cell.kind == "quality" and job.cell.device == "cpu":
        forked = server.fork(events, jobs, log)
        if forked is not None:
            return forked
    threads = str(job.threads)
    environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    if job.cell.device == "cuda":
        environment["CUDA_VISIBLE_DEVICES"] = _gpus_of(place, job.replicas)
        # cuBLAS is reproducible only with a fixed workspace.
        environment["CUBLAS_WORKSPACE_CONFIG"] = os.environ.get(
            "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
        )
    return Fresh(events, jobs, log, environment)


def _gpus_of(place: int, count: int) -> str:
    """The GPUs of a worker's place, in turns where there are more places than GPUs."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named:
        gpus = named.split(",")
    else:
        import torch

        gpus = [str(number) for number in range(max(1, torch.cuda.device_count()))]
    first = place * count
    return ",".join(dict.fromkeys(gpus[(first + i) % len(gpus)] for i in range(count)))


def _end_of(code: int | None, by_kernel: bool | None, last_words: str) -> End:
    """Of a worker that died without a word.

    Args:
        code: of its exit, negative for a signal; None: it did not exit.
        by_kernel: whether the kernel has killed a process for want of memory since it began; None
            where nothing counts that.
        last_words: the end of its log.
    """
    status = Status.ERROR
    if code is None:
        message = f"the worker told nothing and had not exited {_EXIT_SECONDS:.0f} s later"
    elif code == -signal.SIGKILL and by_kernel:
        status, message = Status.OOM, "killed by the kernel, for want of memory"
    elif code == -signal.SIGKILL:
        why = (
            "this system does not tell whether for want of memory"
            if by_kernel is None
            else "not by the kernel for want of memory, so from outside"
        )
        message = (
            f"killed by signal 9, {why}; run the same command again, "
            "with fewer --workers if memory is short"
        )
    elif code < 0:
        message = f"the worker died of {_signal_name(-code)}"
    else:
        message = f"the worker exited with code {code} without a result"
    return End(status, message + (f"; last words: {last_words}" if last_words else ""))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has no name
        return f"signal {number}"
