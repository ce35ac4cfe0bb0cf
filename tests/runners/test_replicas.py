"""Several processes train one cell: together they make the steps that one process would make."""

import json
import os
import subprocess
import sys

import pytest
import torch

from cab.schema import Status
from runners.executors.events import Ended
from runners.executors.local import LocalExecutor, _gpus_of
from runners.outcome import UnsupportedError
from runners.replicas import Replicas
from tests.runners.test_training import Regression, trained_weight

CODE = """
import json, os
import torch
from torch import nn
from runners.replicas import joined
from runners.training import train
from tests.runners.test_training import Regression

task = Regression(batch_size=2, accumulate=4)
torch.manual_seed(0)
model = nn.Linear(3, 1)
with joined("cpu") as replicas:
    trained = train(task, model, [], 0, lambda **event: None, replicas)
print(json.dumps([replicas.rank, model.weight.tolist(), trained.losses]), flush=True)
os._exit(0)  # as runners.replica does
"""


def test_two_processes_make_the_steps_of_one(tmp_path):
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CODE],
            env={**os.environ, **place, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    ends = [json.loads(p.communicate(timeout=280)[0].splitlines()[-1]) for p in processes]
    assert [end[0] for end in ends] == [0, 1]
    alone = trained_weight(Regression(batch_size=2, accumulate=4))
    for _, weight, losses in ends:
        assert torch.allclose(torch.tensor(weight), alone, atol=1e-6)
        assert losses == ends[0][2]


def free_port():
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_shares_are_even_and_whole():
    shares = [list(Replicas(rank, 3).share(6)) for rank in range(3)]
    assert shares == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(UnsupportedError, match="4 batches a step, which 3 replicas cannot share"):
        Replicas(0, 3).share(4)


def test_a_recipe_that_cannot_be_shared_ends_as_unsupported(plan_of):
    cell = next(c for c in plan_of("lla") if c.attention == "lla")
    events = []
    LocalExecutor(workers=1, timeout=280, replicas=2).run([cell], events.append)
    [end] = [event for event in events if isinstance(event, Ended)]
    assert end.status is Status.UNSUPPORTED
    assert "2 replicas cannot share" in end.message


def test_every_worker_gets_gpus_of_its_own(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert [_gpus_of(place, 2) for place in range(3)] == ["4,5", "6,7", "4,5"]
    assert _gpus_of(3, 1) == "7"
    assert _gpus_of(0, 8) == "4,5,6,7"
