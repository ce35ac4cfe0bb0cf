"""``cab bench``: lengths, the table, files, reuse, and what is refused."""

import re

import pandas as pd
import pyarrow.parquet as pq
import pytest

from cab.cli.bench import parse_lengths
from cab.errors import UsageError

WORDS = (
    "bench", "--attn", "linear-elu", "--pattern", "causal-self", "--heads", "2", "--head-dim",
    "16", "--batch", "2", "--dtype", "fp32", "--processes", "2", "--seconds", "12",
    "--device", "cpu", "--threads", "1",
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("1k..64k", (1024, 2048, 4096, 8192, 16384, 32768, 65536)),
        ("256,1k, 4096", (256, 1024, 4096)),
        ("300..1000", (300, 600)),
        ("1K", (1024,)),
        ("512,256..1k", (256, 512, 1024)),
    ],
)
def test_lengths(text, lengths):
    assert parse_lengths(text) == lengths


@pytest.mark.parametrize("text", ["", "0", "-1", "1k...4k", "4k..1k", "1m", "a..b", "1,,2"])
def test_lengths_that_make_no_sense(text):
    with pytest.raises(UsageError, match="--lengths"):
        parse_lengths(text)


def test_table_files_and_reuse(cab_in, tmp_path):
    words = (*WORDS, "--lengths", "128,256", "--out", "bench")
    done = cab_in(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    for phrase in ("forward", "fwd + bwd", "decode", "claimed", "pays", "energy is not available"):
        assert phrase in done.stdout
    out = tmp_path / "bench"
    svg = (out / "bench-causal-self.svg").read_text()
    assert svg.startswith("<svg")
    assert "linear-elu" in svg
    assert (out / "bench-causal-self.png").read_bytes().startswith(b"\x89PNG")
    frame = pd.read_csv(out / "bench.csv")
    timed = frame[frame["metric"] == "latency"]
    assert set(timed["phase"]) == {"forward", "forward_backward", "decode"}
    assert set(timed["length"]) == {128, 256}
    assert set(timed["processes"]) == {2}
    rows = pd.concat(pq.read_table(path).to_pandas() for path in out.glob("*.parquet"))
    wanted = {
        "latency", "latency_ratio", "latency_ratio_softmax_exact", "first_call", "flops",
        "flop_utilisation", "intensity", "peak_memory", "traced_memory", "saved_for_backward",
        "state_bytes", "traffic", "gemm_rate", "copy_rate",
    }  # fmt: skip
    assert wanted <= set(rows["metric"])
    assert set(rows["heads"]) == {2}
    assert set(rows["scale"]) == {"B2 H2 D16 float32"}
    energy = rows[rows["metric"] == "energy_per_token"]
    assert set(energy["status"]) == {"unsupported"}

    again = cab_in(*words)
    assert again.returncode == 0
    assert "2 in bench already, 0 to run" in again.stdout
    # Other sizes are other cells.
    other = cab_in(*words[:-2], "--phase", "decode", "--processes", "1", "--out", "bench")
    assert "0 in bench already, 1 to run" in other.stdout


def test_lengths_beyond_the_time_are_recorded_as_such(cab_in, tmp_path):
    done = cab_in(
        "bench", "--attn", "softmax-exact", "--pattern", "NS", "--lengths", "256,512k",
        "--heads", "1", "--head-dim", "8", "--phase", "forward", "--processes", "1",
        "--seconds", "3", "--device", "cpu", "--threads", "1", "--out", "bench",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"524288\s+(timeout|oom)", done.stdout)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--lengths", "5q"), "--lengths"),
        (("--phase", "sideways"), "unknown phase"),
        (("--dtype", "int8"), "unknown dtype"),
        (("--batch", "0"), "must be positive"),
        (("--threads", "9999"), "--threads"),
        (("--attn", "lara", "--pattern", "NS", "--phase", "decode"), "nothing is left"),
        (("--cuda-graphs", "--device", "cpu"), "--cuda-graphs"),
    ],
)
def test_what_is_refused(cab_in, words, complaint):
    base = ("bench", "--attn", "linear-elu", "--pattern", "CS", "--device", "cpu")
    chosen = ("bench", *words, "--device", "cpu") if "--attn" in words else (*base, *words)
    done = cab_in(*chosen)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
