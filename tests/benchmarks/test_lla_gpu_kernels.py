"""The GPU benchmark's script from end to end, with the kernels in Triton's interpreter."""

import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from benchmarks.lla.gpu_entries import PHASES
from benchmarks.lla.gpu_tuning import keep_tuning
from cab.schema import SCHEMA
from tests.attentions import kernel_cases


@pytest.mark.slow
def test_runs_on_a_cpu(tmp_path):
    out = tmp_path / "lla.parquet"
    command = [sys.executable, "-m", "benchmarks.lla.gpu", "--device", "cpu", "--quick"]
    done = subprocess.run(
        [*command, "--lengths", "32", "--out", str(out)],
        env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for phase in PHASES:
        assert f"### {phase}" in done.stdout
    table = pq.read_table(out)
    assert table.schema.equals(SCHEMA)
    rows = table.to_pylist()
    assert {row["status"] for row in rows} == {"ok"}, [row["message"] for row in rows]
    assert {row["label"] for row in rows} == {"reference"}
    assert all(row["source"].startswith("python -m benchmarks.lla.gpu") for row in rows)
    of_kernel = [row for row in rows if row["backend"] == "triton" and row["attention"] == "lla"]
    assert {row["metric"] for row in of_kernel if row["phase"] == "forward"} == {
        "latency", "latency_ratio", "implied_latency_ratio", "peak_memory", "flop_utilisation",
        "solver_iterations", "solver_residual",
    }  # fmt: skip
    assert {row["phase"] for row in of_kernel} == set(PHASES)
    assert {(row["length_q"], row["length_k"]) for row in rows} == {(32, 32), (1, 32)}


def test_configurations_are_kept_for_longer_sequences(monkeypatch):
    kernel = kernel_cases.KERNELS[0]
    monkeypatch.setattr(kernel, "cache", {(4096, 4096, 64, "bf16"): "few", (2, 2, 64): "other"})
    keep_tuning(4096, [1024, 4096, 8192])
    assert kernel.cache == {
        (4096, 4096, 64, "bf16"): "few",
        (8192, 8192, 64, "bf16"): "few",
        (2, 2, 64): "other",
    }
