"""Results folders with known standings, written through the store as a run would."""

from __future__ import annotations

import json
import math
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cab.schema import Row
from cab.store import ResultStore

GRADES = {
    "lla": "extension", "linear-elu": "extension", "softmax": "faithful", "none": "faithful",
    "lla:1,linear-elu:3": "extension",
}  # fmt: skip
METRICS = {
    "summarization": (("nll", "nat/token", 4.0), ("entity_nll", "nat/token", 6.0)),
    "tts": (("l1", "1", 0.5),),
    "test-time-regression": (("mse", "1", 0.5),),
}
SEEDS = 3
CURVE = 20

Scores = dict[str, dict[str, float]]
"""Log-ratio to softmax by task and attention"""

CLEAR: Scores = {
    "summarization": {"softmax": 0.0, "lla": 0.1, "linear-elu": -0.2, "none": -0.6},
    "tts": {"softmax": 0.0, "lla": 0.5, "linear-elu": 0.8, "none": -0.9},
}
"""lla wins on summarization, linear-elu on regression and over both"""


class StoreBuilder:
    """Adds the rows of whole cells to one folder; the numbers come from a seeded generator."""

    def __init__(self, folder: Path) -> None:
        self._store = ResultStore(folder)
        self._store.prepare()
        self._random = random.Random(0)
        self._clock = datetime(2026, 1, 1, tzinfo=UTC)

    def quality(
        self,
        scores: Scores,
        pattern: str = "causal-cross",
        scale: str = "tiny",
        noise: float = 0.005,
        seeds: int = SEEDS,
    ) -> None:
        """Test scores and loss curves for every task, attention and seed."""
        for task, indices in scores.items():
            for attention, index in indices.items():
                for seed in range(seeds):
                    row = self._row("quality", attention, pattern, scale, seed, task)
                    rows = [
                        self._number(
                            row, "eval", name, base * math.exp(-index + self._noise(noise)), unit
                        )
                        for name, unit, base in METRICS[task]
                    ]
                    losses = [3.0 * math.exp(-i / CURVE) - index / 10 for i in range(CURVE)]
                    rows.append(
                        self._number(row, "train", "train_loss", losses[-1], "loss", losses)
                    )
                    rows.append(self._number(row, "train", "train_time", 1.0 + seed, "s"))
                    self._append(rows)

    def described(self, task: str, pattern: str = "causal-cross", scale: str = "tiny") -> None:
        """A reference and an analysis of softmax on a task that has scores."""
        metric, unit, base = METRICS[task][0]
        row = self._row("quality", "softmax", pattern, scale, 0, task)
        self._append(
            [
                self._number(row, "reference", f"{metric}@oracle", base / 4, unit),
                self._number(row, "analysis", "attention_entropy", 2.5, "nat"),
            ]
        )

    def failed(
        self, attention: str, task: str, status: str, message: str, scale: str = "tiny"
    ) -> None:
        """Quality cells that ended without a score."""
        for seed in range(SEEDS):
            row = self._row("quality", attention, "causal-cross", scale, seed, task)
            row |= {"status": status, "message": message}
            self._append([row])

    def cost(
        self,
        exponents: dict[str, float],
        pattern: str = "causal-cross",
        scale: str = "tiny",
        lengths: tuple[int, ...] = (256, 512, 1024),
        oom: dict[str, int] | None = None,
        disturbed: dict[str, int] | None = None,
    ) -> None:
        """Latency, ratio and peak memory that grow with a power of the length.

        ``oom`` gives the length from which an attention runs out of memory, ``disturbed`` one at
        which others kept the machine busy during its first process.
        """
        for attention, exponent in exponents.items():
            limit = (oom or {}).get(attention, max(lengths) + 1)
            for process in range(3):
                base = self._row("efficiency", attention, pattern, scale, process, "")
                base |= {"batch": 1, "heads": 4, "head_dim": 16, "dtype": "float32"}
                rows = []
                for phase, factor in (("forward", 1.0), ("forward_backward", 3.0)):
                    for length in lengths:
                        row = base | {"length_q": length, "length_k": length}
                        if process == 0 and (disturbed or {}).get(attention) == length:
                            row |= {"environment": json.dumps({"torch": "2.9.0", "noisy": True})}
                        if length >= limit:
                            row |= {"phase": phase, "status": "oom"}
                            rows.append(row | {"message": f"out of memory at length {length}"})
                            continue
                        seconds = factor * 1e-4 * (length / 256) ** exponent
                        softmax = factor * 1e-4 * (length / 256) ** 2
                        drawn = [math.exp(self._noise(0.05)) for _ in range(4)]
                        for name, value, unit in (
                            ("latency", seconds, "s"),
                            ("latency_ratio", seconds / softmax, "1"),
                            ("peak_memory", 2048.0 * length**exponent / 16, "B"),
                        ):
                            samples = [value * d for d in drawn]
                            rows.append(self._number(row, phase, name, value, unit, samples))
                self._append(rows)

    def cost_timeout(self, attention: str) -> None:
        """An efficiency cell that was stopped as a whole, before any length was reported."""
        row = self._row("efficiency", attention, "causal-cross", "tiny", 0, "")
        self._append([row | {"status": "timeout", "message": "stopped after 60 s"}])

    def _row(
        self, kind: str, attention: str, pattern: str, scale: str, seed: int, task: str
    ) -> dict[str, object]:
        return {
            "run_id": "run-1",
            "cell": f"{kind}-{attention}-{pattern}-{scale}-{seed}-{task}",
            "kind": kind,
            "attention": attention,
            "grade": GRADES[attention],
            "attention_options": "{}",
            "attention_hash": f"code of {attention}",
            "pattern": pattern,
            "task": task,
            "task_hash": f"code of {task}",
            "data_hash": "data",
            "scale": scale,
            "seed": seed,
            "train_steps": 60,
            "parameters_total": 45000,
            "parameters_attention": 2,
            "device": "cpu",
            "device_name": "Example CPU",
            "threads": 2,
            "environment": json.dumps({"torch": "2.9.0"}),
            "backend": "torch",
            "label": "self-reported",
            "suite_version": "0.1.0",
            "git_commit": "0123456789abcdef",
        }

    @staticmethod
    def _number(
        row: dict[str, object],
        phase: str,
        metric: str,
        value: float,
        unit: str,
        samples: list[float] | None = None,
    ) -> dict[str, object]:
        return row | {
            "phase": phase,
            "metric": metric,
            "value": value,
            "unit": unit,
            "higher_is_better": False,
            "samples": samples or [],
        }

    def _append(self, rows: list[dict[str, object]]) -> None:
        made = []
        for row in rows:
            self._clock += timedelta(seconds=1)
            made.append(Row(**row, recorded_at=self._clock))  # type: ignore[arg-type]  # fields of mixed types
        self._store.append(made)

    def _noise(self, spread: float) -> float:
        return self._random.gauss(0.0, spread)
