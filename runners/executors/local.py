"""The executor on this machine: every cell in a worker process of its own.

Quality cells share the machine, one thread each on a CPU, which trains more cells an hour than one
cell on all cores; efficiency cells run alone, because a neighbour would be measured too.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import IO, Any

from cab.artifact import Artifact
from cab.cell import Cell
from cab.schema import Row, Status
from runners.artifacts import from_json
from runners.environment import available_cores
from runners.executors.events import Ended, Event, Progressed, Started


class LocalExecutor:
    """Runs cells in worker processes, several at a time."""

    def __init__(
        self,
        workers: int | None = None,
        threads: int | None = None,
        timeout: float = 900.0,
        replicas: int = 1,
    ) -> None:
        """Choose how the machine is shared.

        Args:
            workers: quality cells at a time; None: one per core on a CPU, one per GPU.
            threads: torch threads of a quality cell; None: one. Efficiency cells get all cores.
            timeout: seconds after which a cell is ended as ``timeout``.
            replicas: processes that train one quality cell together, each on a GPU of its own.
        """
        self._workers = workers
        self._threads = threads or 1
        self._timeout = timeout
        self._replicas = replicas

    def run(self, cells: Sequence[Cell], on_event: Callable[[Event], None]) -> None:
        """See `Executor.run`; quality cells first, then efficiency cells one by one."""
        quality = [cell for cell in cells if cell.kind == "quality"]
        alone = [cell for cell in cells if cell.kind != "quality"]
        self._run(quality, self.width(quality), self._threads, on_event)
        self._run(alone, 1, available_cores(), on_event)

    def width(self, cells: Sequence[Cell]) -> int:
        """Quality cells that run at a time."""
        if self._workers is not None:
            return max(1, self._workers)
        if any(cell.device == "cuda" for cell in cells):
            import torch

            return max(1, torch.cuda.device_count() // self._replicas)
        return max(1, available_cores() // (self._threads * self._replicas))

    def _run(
        self, cells: Sequence[Cell], width: int, threads: int, on_event: Callable[[Event], None]
    ) -> None:
        pending = list(cells)
        running: dict[int, _Worker] = {}
        with selectors.DefaultSelector() as selector:
            try:
                while pending or running:
                    while pending and len(running) < width:
                        place = next(i for i in range(width) if i not in running)
                        worker = _Worker(pending.pop(0), threads, place, self._replicas)
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
                        if worker.finished:
                            selector.unregister(worker.events)
                            del running[place]
                            on_event(worker.close())
            finally:
                for worker in running.values():
                    worker.kill()


class _Worker:
    """One worker process and what it has reported."""

    def __init__(self, cell: Cell, threads: int, place: int, replicas: int) -> None:
        self.cell = cell
        self.rows: list[Row] = []
        self.artifacts: list[Artifact] = []
        self.finished = False
        self._status: Status | None = None
        self._message = ""
        self._buffer = b""
        self._began = time.monotonic()
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        reader, writer = os.pipe()
        environment = dict(os.environ)
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        environment["CAB_REPLICAS"] = str(replicas)
        if cell.device == "cuda":
            environment["CUDA_VISIBLE_DEVICES"] = _gpus_of(place, replicas)
            # cuBLAS is reproducible only with a fixed workspace.
            environment.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "runners.worker", str(writer)],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            pass_fds=(writer,),
            env=environment,
            # Ctrl-C reaches the parent alone, which then ends its workers in order.
            start_new_session=True,
        )
        os.close(writer)
        os.set_blocking(reader, False)
        self.events = os.fdopen(reader, "rb", buffering=0)
        assert self._process.stdin is not None
        self._process.stdin.write(cell.to_json().encode() + b"\n")
        self._process.stdin.flush()

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
            return []
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        progress = []
        for line in lines:
            event: dict[str, Any] = json.loads(line)
            if "status" in event:
                self._status = Status(event["status"])
                self._message = event.get("message", "")
                continue
            self.rows += [_row(fields) for fields in event["rows"]]
            self.artifacts += [from_json(fields) for fields in event["artifacts"]]
            progress.append(Progressed(self.cell, event["done"], event["loss"]))
        return progress

    def give_up(self, timeout: float) -> None:
        """End a worker that takes too long."""
        self.kill()
        self._status = Status.TIMEOUT
        self._message = f"not finished after {timeout:.0f} s"
        self.finished = True

    def kill(self) -> None:
        """End the process and everything that it started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> Ended:
        """Reap the process; a worker that died without a word gets its end from its exit code."""
        seconds = self.seconds
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._process.returncode
        if self._status is None:
            self._status, self._message = _end_of(code)
            tail = self._log_tail()
            self._message += f"; last words: {tail}" if tail else ""
        self.events.close()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._log.close()
        return Ended(self.cell, self._status, self._message, self.rows, seconds, self.artifacts)

    def _log_tail(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else ""


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


def _end_of(code: int) -> tuple[Status, str]:
    if code == -signal.SIGKILL:
        return Status.OOM, "the worker was killed, most likely for want of memory"
    if code < 0:
        return Status.ERROR, f"the worker died of {signal.Signals(-code).name}"
    return Status.ERROR, f"the worker exited with code {code} without a result"


def _row(fields: dict[str, Any]) -> Row:
    if fields["recorded_at"] is not None:
        fields["recorded_at"] = datetime.fromisoformat(fields["recorded_at"])
    return Row(**fields)
