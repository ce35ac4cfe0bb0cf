"""Results folders with known standings, for the commands that read them."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cab.schema import Row
from cab.store import ResultStore

ABILITY = {"softmax": 0.0, "softmax-exact": 0.0, "none": -1.0, "lla": 0.4, "local": -0.3,
           "abc": -0.1, "s4d": 0.1, "long-short": 0.2}  # fmt: skip
TASKS = {
    "causal-self": {"language-modeling": ("nll",), "summarization": ("nll",), "made-up": ("loss",)},
    "noncausal-self": {"masked-lm": ("nll",), "forecasting": ("mse",), "made-up": ("loss",)},
}
FLAT = ("noncausal-self", "forecasting")
"""A pair that does not measure attention"""
SCALES = ("small", "base")
LENGTHS = (256, 512, 1024)


def write_store(folder: Path) -> None:
    """Quality on two patterns and scales, cost on one, and a diverged task of s4d."""
    generator = random.Random(0)
    store, rows = ResultStore(folder), []
    store.prepare()
    clock = datetime(2026, 1, 1, tzinfo=UTC)

    def row(kind, attention, pattern, task, scale, seed, **fields):
        nonlocal clock
        clock += timedelta(seconds=1)
        cell = f"{kind} {attention} {pattern} {task} {scale} {seed}"
        rows.append(
            Row(
                cell=cell, kind=kind, attention=attention, pattern=pattern, task=task, scale=scale,
                seed=seed, recorded_at=clock, run_id="run", grade="faithful", attention_hash="h",
                attention_options="{}", task_hash="t", data_hash="d", device="cpu",
                device_name="A CPU", threads=1, environment='{"torch": "2.13.0"}', backend="torch",
                label="self-reported", suite_version="0.1.0", git_commit="abc", **fields,
            )
        )  # fmt: skip

    for scale in SCALES:
        for pattern, tasks in TASKS.items():
            for task, metrics in tasks.items():
                for attention, ability in ABILITY.items():
                    if (attention, task) == ("s4d", "summarization"):
                        row("quality", attention, pattern, task, scale, 0, status="diverged")
                        continue
                    shift = generator.gauss(0, 0.02) if attention != "softmax" else 0.0
                    for seed in range(3):
                        for metric in metrics:
                            noise = generator.gauss(0, 0.01)
                            index = (0.0 if (pattern, task) == FLAT else ability + shift) + noise
                            row(
                                "quality", attention, pattern, task, scale, seed, phase="eval",
                                metric=metric, value=3 * math.exp(-index), unit="nat",
                                higher_is_better=False, parameters_attention=len(attention),
                            )  # fmt: skip
    for attention, power in (("softmax", 2.0), ("lla", 2.2), ("local", 1.0), ("s4d", 1.0)):
        for seed in range(3):
            for length in LENGTHS:
                if (attention, length) == ("lla", 1024):
                    row(
                        "efficiency", attention, "causal-self", "", "small", seed, status="oom",
                        phase="forward", length_q=length, metric="latency", message="memory",
                    )  # fmt: skip
                    continue
                seconds = (0.3 if power == 1 else 0.1) * 1e-3 * (length / 256) ** power
                ratio = seconds / (1e-4 * (length / 256) ** 2)
                for metric, value, unit in (
                    ("latency", seconds, "s"),
                    ("latency_ratio", ratio, "1"),
                    ("peak_memory", 64.0 * length**power, "B"),
                ):
                    samples = [value * math.exp(generator.gauss(0, 0.01)) for _ in range(3)]
                    row(
                        "efficiency", attention, "causal-self", "", "small", seed, phase="forward",
                        length_q=length, length_k=length, batch=1, heads=4, head_dim=16,
                        dtype="float32", metric=metric, value=value, unit=unit, samples=samples,
                        higher_is_better=False,
                    )  # fmt: skip
    store.append(rows)
