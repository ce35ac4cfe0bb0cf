"""Processes that train one cell together, one per GPU: data parallelism by summed gradients.

A recipe's step is ``accumulate`` batches. Each process draws all of them from the same stream and
trains on its share, so a step stays what the recipe says however many processes there are.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed, nn

from cab.own_code import safe_environment, safe_python
from cab.schema import Status
from runners.outcome import UnsupportedError
from runners.protocol import End, Job, Progress, message_of

_PATIENCE = timedelta(hours=2)
"""The others wait for the first process while it evaluates."""


@dataclass(frozen=True)
class Replicas:
    """A process among those that train a cell together."""

    rank: int = 0
    count: int = 1

    def share(self, batches: int) -> range:
        """Numbers of this process's batches among those of one step.

        Raises:
            UnsupportedError: they cannot be shared evenly.
        """
        if batches % self.count:
            raise UnsupportedError(
                f"the recipe has {batches} batches a step, which {self.count} replicas cannot share"
            )
        own = batches // self.count
        return range(self.rank * own, (self.rank + 1) * own)

    def sum_gradients(self, model: nn.Module) -> None:
        """Every process gets the sum over all of them."""
        if self.count == 1:
            return
        for parameter in model.parameters():
            if parameter.requires_grad:
                # A part that no batch of this process has used still takes part in the sum.
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                distributed.all_reduce(parameter.grad)

    def sum(self, value: float, device: torch.device) -> float:
        """Of one number per process."""
        if self.count == 1:
            return value
        held = torch.tensor(value, dtype=torch.float64, device=device)
        distributed.all_reduce(held)
        return held.item()


@contextlib.contextmanager
def joined(device: str) -> Iterator[Replicas]:
    """Meet the other processes that `start_others` has made, if there are any."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Replicas()
        return
    rank = int(os.environ["RANK"])
    if device == "cuda":
        torch.cuda.set_device(rank % torch.cuda.device_count())
    distributed.init_process_group("nccl" if device == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Replicas(rank, count)
    finally:
        distributed.destroy_process_group()


def start_others(job: Job, on_failure: Callable[[End], None]) -> None:
    """Start the processes of all ranks but this one's, which becomes rank 0.

    They end with this process. If one of them fails, ``on_failure`` gets its end.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    count = job.replicas
    place = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update(place, RANK="0")
    for rank in range(1, count):
        process = subprocess.Popen(
            safe_python("-m", "runners.replica"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=safe_environment(RANK=str(rank)),
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write(job.to_line() + "\n")
        process.stdin.flush()
        threading.Thread(target=_watch, args=(process, on_failure), daemon=True).start()


def _watch(process: subprocess.Popen[str], on_failure: Callable[[End], None]) -> None:
    assert process.stdout is not None
    words = process.stdout.read()
    if process.wait() == 0:
        return
    end: Progress | End | None = None
    with contextlib.suppress(IndexError, ValueError):  # it died before it could say why
        end = message_of(words.splitlines()[-1])
    if not isinstance(end, End):
        end = End(Status.ERROR, f"a replica exited with code {process.returncode}")
    on_failure(end)
