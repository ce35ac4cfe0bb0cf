"""What goes over the pipes between an executor and its workers, as lines of JSON.

To a worker: one `Job`, on its standard input, which then stays open. When it closes, the parent is
gone and the worker ends at once (`end_with_parent`), so nothing keeps running after a kill.

From a worker, over a file descriptor of its own: `Progress`, as often as it likes, with the rows
and artifacts that it has by then, and last an `End`. What is sent before a worker dies is kept. Its
standard output and error are a log that no one parses.

From a replica, which helps a worker to train: nothing, or as the last line of its output the `End`
of its failure. From the server that forks workers: `started` and `ended`, in words.
"""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import IO, Any

from cab.artifact import Artifact
from cab.cell import Cell
from cab.schema import Row, Status

MEASURE, REPLAY = "measure", "replay"
"""What a worker does with a cell: all of it, or the witness alone"""


@dataclass(frozen=True)
class Job:
    """What a worker is to do, and what it may take of the machine."""

    cell: Cell
    threads: int
    replicas: int = 1
    """Processes that train the cell together"""
    action: str = MEASURE

    def to_line(self) -> str:
        """As JSON on one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_line(cls, line: str) -> Job:
        """The inverse of `to_line`."""
        fields: dict[str, Any] = json.loads(line)
        fields["cell"] = Cell.from_mapping(fields["cell"])
        return cls(**fields)


@dataclass(frozen=True)
class Progress:
    """A cell has come some way."""

    done: float
    """Share of the cell, 0 to 1"""
    loss: float | None = None
    rows: list[Row] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)

    def to_line(self) -> str:
        """As JSON on one line."""
        content = {
            "done": self.done,
            "loss": self.loss,
            "rows": [row.as_dict() for row in self.rows],
            "artifacts": [_encoded(artifact) for artifact in self.artifacts],
        }
        return json.dumps(content, default=str)


@dataclass(frozen=True)
class End:
    """A cell has ended."""

    status: Status
    message: str = ""

    def to_line(self) -> str:
        """As JSON on one line."""
        return json.dumps({"status": self.status.value, "message": self.message})

    @classmethod
    def of(cls, error: BaseException) -> End:
        """The end that an exception stands for."""
        from runners.outcome import describe, status_of

        return cls(status_of(error), describe(error))


def message_of(line: str | bytes) -> Progress | End:
    """The inverse of ``to_line``.

    Raises:
        ValueError: it is no message.
    """
    try:
        fields = json.loads(line)
        if "status" in fields:
            return End(Status(fields["status"]), str(fields["message"]))
        return Progress(
            fields["done"],
            fields["loss"],
            [_row(row) for row in fields["rows"]],
            [_artifact(artifact) for artifact in fields["artifacts"]],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"no message of a worker: {type(error).__name__}: {error}") from error


class Sender:
    """A worker's side; `report` is what runners call as the work goes on (`runners.report`)."""

    def __init__(self, descriptor: int) -> None:
        """Take over a file descriptor that is open for writing."""
        self._stream = os.fdopen(descriptor, "w", buffering=1)

    def report(
        self,
        *,
        done: float,
        loss: float | None = None,
        rows: list[Row] | None = None,
        artifacts: list[Artifact] | None = None,
    ) -> None:
        """See `runners.report.Report`."""
        self.send(Progress(done, loss, rows or [], artifacts or []))

    def send(self, message: Progress | End) -> None:
        """One line."""
        print(message.to_line(), file=self._stream, flush=True)

    def close(self) -> None:
        """There is no more to tell."""
        self._stream.close()


class Receiver:
    """An executor's side: pieces of the stream become messages."""

    def __init__(self) -> None:
        self._rest = b""

    def take(self, chunk: bytes) -> Iterator[Progress | End]:
        """The messages that are complete with these bytes, one after the other.

        Raises:
            ValueError: a line is no message; those before it have been given.
        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            yield message_of(line)


def end_with_parent(jobs: IO[str]) -> None:
    """End this process when the parent is gone, whatever it is doing.

    Args:
        jobs: that the job has been read from; the parent holds it open.
    """

    def wait() -> None:
        jobs.read()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def started(pid: int) -> bytes:
    """The server has forked a worker."""
    return f"started {pid}\n".encode()


def ended(pid: int, code: int) -> bytes:
    """A worker of the server has ended; a signal is a negative code."""
    return f"ended {pid} {code}\n".encode()


def _encoded(artifact: Artifact) -> dict[str, str]:
    content = base64.b64encode(artifact.content).decode("ascii")
    return asdict(artifact) | {"content": content}


def _artifact(fields: Mapping[str, str]) -> Artifact:
    content = base64.b64decode(fields["content"])
    return Artifact(fields["name"], fields["suffix"], fields["caption"], content)


def _row(fields: dict[str, Any]) -> Row:
    if fields["recorded_at"] is not None:
        fields["recorded_at"] = datetime.fromisoformat(fields["recorded_at"])
    return Row(**fields)
