"""``cab bench``: lengths, the table, files, reuse, and what is refused."""

import re
import shutil

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import cab
from cab.benching.frame import COLUMNS
from cab.benching.order import BenchOrder
from cab.benching.sizes import parse_lengths
from cab.errors import ContractError, UsageError
from cab.kernel_names import as_written

WORDS = (
    "bench", "--attn", "linear-elu", "--pattern", "causal-self", "--heads", "2", "--head-dim",
    "16", "--batch", "2", "--dtype", "fp32", "--processes", "2", "--seconds", "60",
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
    out, drawings = tmp_path / "bench", tmp_path / "bench.files" / "drawn"
    svg = (drawings / "cost-causal-self-cpu.svg").read_text()
    assert svg.startswith("<svg")
    assert "linear-elu" in svg
    assert "causal-self, B2 H2 D16 float32, cpu; cab " in svg
    drawn = {path.name for path in drawings.iterdir()}
    panels = {
        *(f"latency-causal-self-{p}-cpu" for p in ("forward", "forward-backward", "decode")),
        *(f"memory-causal-self-{p}-cpu" for p in ("forward", "forward-backward", "decode")),
    }
    wanted = {f"{name}.{end}" for name in panels for end in ("svg", "pdf")}
    assert (
        wanted | {f"cost-causal-self-cpu.{end}" for end in ("svg", "pdf", "png")} | {"bench.csv"}
        == drawn
    )
    frame = pd.read_csv(drawings / "bench.csv")
    timed = frame[frame["metric"] == "latency"]
    assert set(timed["phase"]) == {"forward", "forward_backward", "decode"}
    assert set(timed["length"]) == {128, 256}
    assert set(timed["processes"]) == {2}
    rows = pd.concat(pq.read_table(path).to_pandas() for path in out.glob("*.parquet"))
    wanted = {
        "latency", "latency_ratio", "latency_softmax", "first_call", "flops",
        "flop_utilisation", "intensity", "peak_memory", "traced_memory", "saved_for_backward",
        "state_bytes", "traffic", "gemm_rate", "copy_rate",
    }  # fmt: skip
    assert wanted <= set(rows["metric"])
    assert set(rows["heads"]) == {2}
    assert set(rows["scale"]) == {"B2 H2 D16 float32"}
    energy = rows[rows["metric"] == "energy_per_token"]
    assert set(energy["status"]) == {"unsupported"}

    # A copied file is no further process.
    for path in list(out.glob("*.parquet")):
        shutil.copy(path, out / f"copy-{path.name}")
    again = cab_in(*words)
    assert again.returncode == 0
    assert "2 in bench already, 0 to run" in again.stdout
    pd.testing.assert_frame_equal(pd.read_csv(drawings / "bench.csv"), frame)
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
    ended = re.search(r"524288\s+softmax-exact\s+(timeout|oom)", done.stdout)
    assert ended
    assert ended[1] == "oom" or "raise --seconds" in done.stdout


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--lengths", "5q"), "--lengths"),
        (("--phase", "sideways"), "unknown phase"),
        (("--dtype", "int8"), "unknown dtype"),
        (("--batch", "0"), "must be at least 1"),
        (("--threads", "9999"), "--threads"),
        (("--attn", "lara", "--pattern", "NS", "--phase", "decode"), "nothing is left"),
        (("--cuda-graphs", "--device", "cpu"), "--cuda-graphs"),
        (("--heads", "4,many"), "--heads"),
        (("--tolerance", "much"), "--tolerance"),
        (("--baseline", "nothing-of-the-kind"), "unknown attention"),
        (("--baseline", "sdpa:slow"), "SDPA backend"),
        (("--attn", "performer", "--pattern", "CS", "--baseline", "prob-sparse"), "prob-sparse"),
    ],
)
def test_what_is_refused(forked_cab_in, words, complaint):
    base = ("bench", "--attn", "linear-elu", "--pattern", "CS", "--device", "cpu")
    chosen = ("bench", *words, "--device", "cpu") if "--attn" in words else (*base, *words)
    done = forked_cab_in(*chosen)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


FUNCTIONS = """
from torch.nn import functional as F


def fused(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def blind(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)
"""


def test_a_function_a_baseline_a_sweep_and_what_shows_them(cab_in, tmp_path):
    (tmp_path / "mine.py").write_text(FUNCTIONS)
    words = (
        "bench", "--attn", "mine.py:fused", "--pattern", "CS",
        "--baseline", "sdpa:math", "--lengths", "64,128", "--phase", "forward", "--batch", "1,2",
        "--heads", "2", "--head-dim", "8", "--processes", "2", "--seconds", "60", "--device",
        "cpu", "--threads", "1", "--out", "bench",
    )  # fmt: skip
    done = cab_in(*words, timeout=560)
    assert done.returncode == 0, done.stdout + done.stderr
    for batch in (1, 2):
        title = f"causal-self, forward: batch {batch}, 2 heads of 8, float32; ratios to sdpa-math"
        assert title in done.stdout
    rows = [line.split() for line in done.stdout.splitlines() if re.match(r"\s+(64|128)  ", line)]
    assert {row[1] for row in rows} == {"fused", "sdpa-math"}
    assert len(rows) == 8
    assert "TFLOP/s: nominal" in done.stdout
    assert "cab leaderboard --metric latency --out bench" in done.stdout
    read = pq.read_table(tmp_path / "bench").to_pandas()
    ratios = {name for name in read["metric"] if name.startswith("latency_ratio")}
    assert ratios == {"latency_ratio_sdpa_math"}
    assert all('"baseline": "sdpa-math"' in text for text in read["environment"].dropna())
    frame = pd.read_csv(tmp_path / "bench.files" / "drawn" / "bench.csv")
    assert set(frame["baseline"]) == {"sdpa-math"}
    assert set(frame["batch"]) == {1, 2}
    drawn = tmp_path / "bench.files" / "drawn" / "cost-causal-self-cpu-b2-h2-d8-float32.svg"
    assert "sdpa-math" in drawn.read_text()

    # No digit is cut in a narrow terminal.
    narrow = cab_in(*words, columns=80)
    for line in narrow.stdout.splitlines():
        if re.match(r"\s+(64|128)  ", line):
            assert len(line.rstrip()) <= 80
            assert "…" not in line

    board = cab_in("leaderboard", "--out", "bench", "--no-reference")
    assert "latency, forward at length 128 (B1 H2 D8 float32, cpu)" in board.stdout
    assert re.search(r"timed in turns: fused \S+x of sdpa-math", board.stdout)
    page = tmp_path / "report.html"
    assert not cab_in("report", "--out", "bench", "--no-reference", "--to", page).returncode
    assert "over sdpa-math" in page.read_text()

    # Against itself nothing is slower.
    same = cab_in(*words, "--compare", "bench")
    assert same.returncode == 0, same.stdout + same.stderr
    assert "0 of 4 points slower" in same.stdout
    # Times without noise, so that the verdict is not the machine's: now twice those of then.
    written = list((tmp_path / "bench").glob("*.parquet"))
    schema = pq.read_schema(written[0])
    for path in written:
        path.unlink()
    mine, base = (read["metric"] == name for name in ("latency", "latency_sdpa_math"))
    for folder, times in ((tmp_path / "old.parquet", 1e-3), (written[0], 2e-3)):
        exact = read.copy()
        exact.loc[mine, "value"], exact.loc[base, "value"] = times, 1e-3
        for which, value in ((mine, times), (base, 1e-3)):
            exact.loc[which, "samples"] = exact.loc[which, "samples"].map(
                lambda s, value=value: [value] * len(s)
            )
        pq.write_table(pa.Table.from_pandas(exact, schema, preserve_index=False), folder)
    slower = cab_in(*words, "--compare", "old.parquet")
    assert slower.returncode == 1, slower.stdout + slower.stderr
    assert "4 of 4 points slower" in slower.stdout


def test_a_baseline_that_breaks_the_contract_is_refused(forked_cab_in, tmp_path):
    (tmp_path / "mine.py").write_text(FUNCTIONS)
    done = forked_cab_in(
        "bench", "--attn", "linear-elu", "--pattern", "CS", "--baseline", "mine.py:blind",
        "--lengths", "64", "--device", "cpu",
    )  # fmt: skip
    assert done.returncode == 2
    assert "baseline blind breaks the attention contract on causal-self" in done.stderr
    assert not list((tmp_path / "results" / "bench").glob("*.parquet"))


@pytest.mark.parametrize("place", ["nowhere", "empty"])
def test_a_comparison_with_nothing_is_refused_before_anything_is_timed(
    forked_cab_in, tmp_path, place
):
    (tmp_path / "empty").mkdir()
    done = forked_cab_in("bench", "--attn", "linear-elu", "--pattern", "CS", "--compare", place)
    assert done.returncode == 2
    assert done.stderr.startswith(f"cab: --compare {place}")
    assert len(done.stderr.strip().splitlines()) == 1


def test_two_versions_of_one_class_are_told_apart(tmp_path):
    for name in ("old", "new"):
        (tmp_path / f"{name}.py").write_text(FUNCTIONS)
    order = BenchOrder(
        attentions=[f"{tmp_path}/new.py:fused"], patterns=["CS"], lengths="64", processes=1,
        baseline=f"{tmp_path}/old.py:fused", device="cpu", phases=["forward"],
    )  # fmt: skip
    (cell,) = order.plan().bench.cells
    assert cell.attention == "fused"
    assert cell.settings["baselines"] == ("fused-baseline",)
    assert cell.softmax_target == f"{tmp_path}/old.py:fused"


def test_the_baselines_code_is_part_of_the_key(tmp_path):
    def key(text, baseline):
        (tmp_path / "mine.py").write_text(text)
        order = BenchOrder(
            attentions=["linear-elu"], patterns=["CS"], lengths="64", processes=1, device="cpu",
            baseline=baseline, phases=["forward"],
        )  # fmt: skip
        (cell,) = order.plan().bench.cells
        return cell.key

    mine = f"{tmp_path}/mine.py:fused"
    keys = [
        key(FUNCTIONS, mine),
        key(FUNCTIONS.replace("=True", "=True, scale=1.0"), mine),
        key(FUNCTIONS, "softmax"),
        key(FUNCTIONS, "sdpa:math"),
    ]
    assert len(set(keys)) == len(keys)
    # A comment is not.
    assert key(f"# of today\n{FUNCTIONS}", mine) == keys[0]


def test_compiled_variants_are_rows_of_their_own():
    order = BenchOrder(
        attentions=["linear-elu"], patterns=["CS"], lengths="64", processes=1, device="cpu",
        compiled=True,
    )  # fmt: skip
    eager, compiled = order.plan().bench.cells
    assert (eager.attention, compiled.attention) == ("linear-elu", "linear-elu+compile")
    assert compiled.settings["compiled"]
    assert "decode" in eager.settings["phases"]
    assert "decode" not in compiled.settings["phases"]
    assert as_written(compiled.attention) == eager.attention


def test_in_python(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FUNCTIONS)
    frame = cab.bench(
        f"{path}:fused", pattern="CS", lengths=[64, 128], baseline="sdpa:math", processes=1,
        heads=2, head_dim=8, batch=[1, 2], device="cpu", threads=1, seconds=60, dtype=torch.float32,
    )  # fmt: skip
    assert list(frame.columns) == list(COLUMNS)
    assert len(frame) == 4
    assert set(frame["status"]) == {"ok"}
    assert set(frame["baseline"]) == {"sdpa-math"}
    assert (frame["latency"] > 0).all()
    operations = frame["tflops"] * 1e12 * frame["latency"]
    half = 2 * frame["batch"] * 2 * frame["length"] ** 2 * 8
    assert operations.tolist() == pytest.approx(half.tolist())
    with pytest.raises(ContractError, match="blind"):
        cab.bench(f"{path}:blind", pattern="CS", lengths=64, device="cpu")


def test_a_process_that_was_started_by_it_does_not_start_it_again(monkeypatch):
    monkeypatch.setenv("CAB_BENCH_CALLED", "1")
    with pytest.raises(UsageError, match="__main__"):
        cab.bench("lla", pattern="CS")
