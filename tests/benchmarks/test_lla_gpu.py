"""The GPU benchmark's script, as far as it runs without a GPU."""

import pyarrow.parquet as pq
import pytest
import torch

from attentions.lla.solvers import Budget
from benchmarks.lla import gpu
from benchmarks.lla.gpu_checks import gradient_problem, output_problem
from benchmarks.lla.gpu_entries import ENTRIES, PHASES, Inputs, draw
from benchmarks.lla.gpu_markdown import aims
from benchmarks.lla.gpu_rows import Result, write
from benchmarks.lla.iterations import kernel_iterations

ON_TORCH = [entry for entry in ENTRIES if entry.name != "lla triton"]


def test_says_so_without_a_gpu(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--out", str(tmp_path / "x.parquet")]) == 2
    assert "needs a CUDA device" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("entry", ON_TORCH, ids=lambda entry: entry.name)
@pytest.mark.parametrize("phase", PHASES)
def test_checks_pass_what_is_right_and_nothing_else(entry, phase):
    torch.manual_seed(1)
    device = torch.device("cpu")
    operation = entry.build(2, 8, device)
    attend = operation.attend(phase)
    if attend is None:
        return
    inputs = Inputs(*(t.detach() for t in draw(2, 40, 8, phase, device, torch.bfloat16)))
    with torch.no_grad():
        out = attend(inputs)
    assert output_problem(operation, inputs, out) is None
    assert "output is off" in output_problem(operation, inputs, out + 0.2)
    assert "output is off" in output_problem(operation, inputs, out * torch.nan)
    if phase == "forward_backward":
        assert gradient_problem(entry, 8, 40, out) is None


def test_iterations_are_those_of_conjugate_gradients():
    torch.manual_seed(2)
    q, k, v = (torch.randn(2, 96, 8) for _ in range(3))
    ridge = torch.ones(2)
    many = kernel_iterations(q, k, v, ridge, Budget(64, 1e-5), rows=16)
    few = kernel_iterations(q, k, v, ridge, Budget(64, 1e-1), rows=16)
    assert 1 <= few < many <= 10
    assert kernel_iterations(q, k, v, ridge, Budget(3, 1e-5), rows=16) == 3


def test_other_head_dims_stay_in_the_file(tmp_path):
    target = tmp_path / "lla.parquet"
    results = {dim: Result(ENTRIES[0], "forward", 2, dim, 64, "bfloat16") for dim in (16, 32)}
    for result in results.values():
        result.seconds = [1.0, 3.0, 2.0]
    for dim in (16, 32, 16):
        write([results[dim]], target, "cpu", "a command")
    rows = pq.read_table(target).to_pylist()
    assert sorted((row["head_dim"], row["metric"], row["value"]) for row in rows) == [
        (16, "latency", 2.0),
        (32, "latency", 2.0),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["lla.parquet"]


def test_aims_are_judged():
    softmax, kernels, *_, torch_path = ENTRIES

    def result(entry, over_sdpa, over_triton):
        return Result(
            entry, "forward", 8, 64, 8192, "bfloat16", seconds=[1.0], over_sdpa=[over_sdpa],
            over_triton=[over_triton], implied_over_sdpa=20.0,
        )  # fmt: skip

    lines = list(aims([result(softmax, 1, 0.1), result(kernels, 30, 1), result(torch_path, 90, 3)]))
    assert [line.rpartition(": ")[2] for line in lines] == ["not met", "met"]
