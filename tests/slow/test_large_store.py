"""A million result rows: ``cab leaderboard`` in under two seconds and a gibibyte, on two cores."""

import os
import resource
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cab.schema import SCHEMA

ROWS = 1_000_000
ATTENTIONS = ("softmax", "softmax-exact", "none", *(f"mechanism-{n:02}" for n in range(37)))
PLACES = [
    (pattern, f"task-{number}")
    for pattern, count in (("noncausal-self", 7), ("causal-self", 5), ("noncausal-cross", 4),
                           ("causal-cross", 4))
    for number in range(count)
]  # fmt: skip
METRICS = ("loss", "error", "distance", "validation_loss")
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)


def words(codes, names):
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(names))


def rows(kind, count, first):
    """Rows of one kind; cells differ by attention, place, seed and code version."""
    number = np.arange(count)
    generator = np.random.default_rng(first)
    quality = kind == "quality"
    metric = number % 4
    attention = number // 4 % len(ATTENTIONS)
    place = number // (4 * len(ATTENTIONS)) % len(PLACES)
    cell = number // (4 * len(ATTENTIONS) * len(PLACES))
    seed, version = cell % 5, cell // 5
    ability = np.where(attention == 2, -1.0, (attention % 7 - 3) * 0.05 * (attention > 2))
    value = 2 * np.exp(-ability + generator.normal(scale=0.01, size=count))
    key = (attention * 100 + place) * 1000 + cell
    names = np.char.add(f"{kind[0]}{first}-", np.unique(key).astype(str))
    columns = {
        "schema_version": np.ones(count, np.int16),
        "run_id": words(version, [f"run-{n}" for n in range(version.max() + 1)]),
        "cell": words(np.unique(key, return_inverse=True)[1], names),
        "recorded_at": 1_700_000_000_000_000 + version * 10**9 + number,
        "kind": words(np.zeros(count), [kind]),
        "status": words(np.zeros(count), ["ok"]),
        "attention": words(attention, ATTENTIONS),
        "grade": words(np.zeros(count), ["faithful"]),
        "attention_options": words(np.zeros(count), ["{}"]),
        "attention_hash": words(version, [f"code-{n}" for n in range(version.max() + 1)]),
        "pattern": words(place, [pattern for pattern, _ in PLACES]),
        "task": words(place, [task if quality else "" for _, task in PLACES]),
        "task_hash": words(np.zeros(count), ["task"]),
        "data_hash": words(np.zeros(count), ["data"]),
        "scale": words(np.zeros(count), ["small"]),
        "seed": seed,
        "phase": words(np.zeros(count), ["eval" if quality else "forward"]),
        "length_q": np.array(LENGTHS)[number % 6],
        "metric": words(metric, METRICS if quality else ["latency", "a", "b", "c"]),
        "value": value,
        "higher_is_better": np.zeros(count, bool),
        "samples": pa.array([[1.0, 2.0, 3.0]] * count),
        "device": words(np.zeros(count), ["cpu"]),
        "environment": words(np.zeros(count), ['{"torch": "2.13.0"}']),
    }
    arrays = []
    for field in SCHEMA:
        column = columns.get(field.name)
        if column is None:
            arrays.append(pa.nulls(count, field.type))
            continue
        array = column if isinstance(column, pa.Array) else pa.array(column)
        if isinstance(array, pa.DictionaryArray):
            array = array.dictionary_decode()
        arrays.append(array.cast(field.type))
    return pa.table(arrays, schema=SCHEMA)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("quality", [0.3, 1.0])
@pytest.mark.parametrize("files", [1, 2000])
def test_a_million_rows(tmp_path, files, quality):
    count = int(ROWS * quality)
    table = rows("quality", count, 0)
    if count < ROWS:
        table = pa.concat_tables([table, rows("efficiency", ROWS - count, 1)])
    step = -(-ROWS // files)
    for number in range(files):
        part = table.slice(number * step, step)
        pq.write_table(part, tmp_path / f"{number:06}.parquet", compression="zstd")
    command = [sys.executable, "-m", "cab", "leaderboard", "--out", str(tmp_path)]
    two = sorted(os.sched_getaffinity(0))[:2]

    def run():
        began = time.perf_counter()
        done = subprocess.run(
            command, capture_output=True, text=True, check=True,
            preexec_fn=lambda: os.sched_setaffinity(0, two),
        )  # fmt: skip
        assert "mechanism-06" in done.stdout
        return time.perf_counter() - began

    first = run()  # of many files, this one makes the merged copy
    best = min(run() for _ in range(5))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(f"{files} files: first {first:.2f} s, then {best:.2f} s, peak {peak / 2**20:.0f} MiB")
    assert best < 2.0
    assert peak < 2**30
