"""What workers are told and tell survives the pipes."""

import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from cab import Artifact
from cab.schema import Status
from runners.outcome import DivergedError
from runners.protocol import End, Job, Progress, Receiver, Sender, message_of
from runners.rows import identity, measured


def test_a_job_is_one_line(plan_of):
    (cell,) = plan_of("lla", measures=("latency",))
    job = Job(cell, 3, 2, "replay")
    line = job.to_line()
    assert "\n" not in line
    again = Job.from_line(line)
    assert again == job
    assert again.cell.key == cell.key


def test_messages_come_out_as_they_went_in(plan_of):
    (cell,) = plan_of("none")
    row = measured(identity(cell), phase="eval", metric="mse", value=0.5, samples=[1.0, 2.0])
    artifact = Artifact("a-picture", "png", "what it shows", bytes(range(256)))
    sent = [
        Progress(0.25),
        Progress(0.5, 1.25, [row], [artifact]),
        End(Status.ERROR, "two\nlines, ü"),
    ]
    reader, writer = os.pipe()
    sender = Sender(writer)
    sender.report(done=0.25)
    sender.report(done=0.5, loss=1.25, rows=[row], artifacts=[artifact])
    sender.send(sent[2])
    sender.close()
    stream = os.read(reader, 1 << 16)
    os.close(reader)
    receiver = Receiver()
    found = [message for byte in stream for message in receiver.take(bytes([byte]))]
    assert found == sent
    assert isinstance(found[1].rows[0].recorded_at, datetime)
    assert found[1].rows[0].recorded_at.tzinfo == UTC


def test_an_exception_is_an_end():
    assert End.of(DivergedError("the loss is nan")) == End(
        Status.DIVERGED, "DivergedError: the loss is nan"
    )
    assert End.of(MemoryError()).status is Status.OOM


@pytest.mark.parametrize("line", ["", "words", "[1]", "{}", '{"status": "fine", "message": ""}'])
def test_what_is_no_message_is_refused(line):
    with pytest.raises(ValueError, match="no message of a worker"):
        message_of(line)


def test_a_process_ends_with_its_parent():
    code = (
        "import sys, time; from runners.protocol import end_with_parent; sys.stdin.readline(); "
        "end_with_parent(sys.stdin); print('ready', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    process.stdin.write(b"job\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"ready\n"
    process.stdin.close()
    assert process.wait(60) == 1
    process.stdout.close()
