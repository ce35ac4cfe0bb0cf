"""CAB's compositional index (Zhang et al. 2022): z-scores with frozen constants, averaged by task.

    z = sign (x - mu) / sigma,   index of a task = mean of z over its metrics,
    index of a pattern = mean over its tasks

The constants are those of CAB's script (scripts/compositional_index); they come from the
attentions that CAB had when each was frozen, another set in each pattern, so indices of different
patterns are not on one scale (ERRATA.md, T6 and T7). The index serves to reproduce CAB's own
leaderboard; this project ranks by log-ratios to softmax (`cab.scoring.quality`). On measured
numbers it has constants of the measured set (`measured_constants`): a new entry changes the index
of all others, which is why it is a view beside the leaderboard and carries CAB's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import pandas as pd

from cab.patterns import Pattern


@dataclass(frozen=True)
class Constant:
    """Mean and deviation of one metric over CAB's reference set."""

    pattern: Pattern
    task: str
    backbone: str
    dataset: str
    metric: str
    mean: float
    deviation: float
    higher_is_better: bool = False

    @property
    def place(self) -> tuple[str, str, str, str, str]:
        """What a published row is found by."""
        return self.pattern.value, self.task, self.backbone, self.dataset, self.metric


def _tts(pattern: Pattern, backbone: str, *moments: tuple[float, float]) -> list[Constant]:
    return [
        Constant(pattern, "TTS", backbone, "LJSpeech", metric, mean, deviation)
        for metric, (mean, deviation) in zip(("MCD", "MSD"), moments, strict=True)
    ]


def _summarization(pattern: Pattern, *moments: tuple[float, float]) -> list[Constant]:
    names = ("ROUGE-1", "ROUGE-2", "ROUGE-L")
    return [
        Constant(pattern, "Sum", "Transformer", "Multi-News", metric, mean, deviation, True)
        for metric, (mean, deviation) in zip(names, moments, strict=True)
    ]


def _forecasting(dataset: str, *moments: tuple[float, float]) -> list[Constant]:
    return [
        Constant(Pattern.NONCAUSAL_CROSS, "LSTF", "Informer", dataset, metric, mean, deviation)
        for metric, (mean, deviation) in zip(("MSE", "MAE"), moments, strict=True)
    ]


_NS, _CS = Pattern.NONCAUSAL_SELF, Pattern.CAUSAL_SELF
_NC, _CC = Pattern.NONCAUSAL_CROSS, Pattern.CAUSAL_CROSS
_FACES = "FFHQ->CelebA-HQ"

CAB_CONSTANTS = (
    *_tts(_NS, "FastSpeech2", (3.4245, 0.06832), (1.97429, 0.0361768)),
    *_tts(_NS, "Transformer-TTS", (4.06947, 0.09422), (2.19021, 0.03866)),
    *_summarization(_NS, (34.88667, 1.39697), (6.79333, 1.41078), (31.96889, 1.31499)),
    Constant(_NS, "SR", "SR3", _FACES, "PSNR", 23.208, 0.27499, True),
    Constant(_NS, "SR", "SR3", _FACES, "SSIM", 0.6758, 0.01557, True),
    Constant(_NS, "MLM", "RoBERTa-base", "PG-19", "PPL", 36.292, 62.30827),
    *_tts(_CS, "Transformer-TTS", (4.08325, 0.04529), (2.20085, 0.01372)),
    *_summarization(_CS, (32.9575, 1.92754), (6.0925, 0.41007), (30.2575, 1.61951)),
    Constant(_CS, "LM", "GPT-2", "PG-19", "PPL", 22.26, 8.29944),
    Constant(_NC, "PCC", "PoinTr", "PCN", "CD-l1", 7.7025, 0.64789),
    Constant(_NC, "PCC", "PoinTr", "PCN", "CD-l2", 0.24775, 0.03366),
    Constant(_NC, "PCC", "PoinTr", "PCN", "F-Score", 0.7625, 0.03906, True),
    *_forecasting("ETT", (1.18933, 0.05615), (0.80625, 0.02193)),
    *_forecasting("Weather", (0.47575, 0.01057), (0.511, 0.00601)),
    *_forecasting("ECL", (0.62025, 0.18948), (0.58075, 0.10312)),
    *_tts(_CC, "Transformer-TTS", (5.5037, 1.29239), (2.6278, 0.42726)),
    *_summarization(_CC, (31.35, 3.77103), (5.26, 1.26028), (28.8, 3.28638)),
)
"""As CAB's script has them, the mistyped mean of ROUGE-L included (ERRATA.md, T1)."""

CORRECTED_CONSTANTS = tuple(
    replace(c, mean=31.95889) if c.metric == "ROUGE-L" and c.pattern is _NS else c
    for c in CAB_CONSTANTS
)
"""With the mean that the data give for T1."""


def measured_constants(rows: pd.DataFrame) -> tuple[Constant, ...]:
    """Mean and deviation (n - 1) over the entries of a set, as CAB derived its own.

    Args:
        rows: columns ``pattern, task, backbone, dataset, metric, attention, value,
            higher_is_better``, one row per attention.

    Returns:
        By metric; one that fewer than two entries have, or that all share, has no deviation and is
        left out.
    """
    place = ["pattern", "task", "backbone", "dataset", "metric", "higher_is_better"]
    found = []
    for key, values in rows.groupby(place, observed=True)["value"]:
        pattern, task, backbone, dataset, metric, higher = key
        deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        if deviation > 0:
            where = (Pattern(str(pattern)), str(task), str(backbone), str(dataset), str(metric))
            found.append(Constant(*where, float(values.mean()), deviation, bool(higher)))
    return tuple(found)


def compositional_index(
    rows: pd.DataFrame, constants: Iterable[Constant] = CAB_CONSTANTS
) -> pd.DataFrame:
    """CAB's index of every attention, pattern and task that has all of the task's metrics.

    Args:
        rows: columns ``pattern, task, backbone, dataset, metric, attention, value``.
        constants: by metric.

    Returns:
        Columns ``pattern, attention, task, value``; task ``average`` is the mean over a pattern's
        tasks, for attentions that have all of them.
    """
    place = ["pattern", "task", "backbone", "dataset", "metric"]
    by_place: Mapping[tuple[str, ...], Constant] = {c.place: c for c in constants}
    known = rows[[tuple(map(str, key)) in by_place for key in rows[place].to_numpy()]]
    found = []
    for row in known.itertuples():
        key = (row.pattern, row.task, row.backbone, row.dataset, row.metric)
        constant = by_place[tuple(map(str, key))]
        sign = 1.0 if constant.higher_is_better else -1.0
        score = sign * (float(str(row.value)) - constant.mean) / constant.deviation
        found.append((row.pattern, row.attention, row.task, score))
    scores = pd.DataFrame(found, columns=["pattern", "attention", "task", "value"])
    wanted: dict[tuple[str, str], int] = {}
    for c in by_place.values():
        group = (c.pattern.value, c.task)
        wanted[group] = wanted.get(group, 0) + 1
    grouped = scores.groupby(["pattern", "attention", "task"])["value"].agg(["mean", "size"])
    tasks = grouped.reset_index().rename(columns={"mean": "value"})
    groups = zip(tasks["pattern"], tasks["task"], strict=True)
    tasks = tasks[tasks["size"] == [wanted[group] for group in groups]]
    per_pattern = pd.Series([pattern for pattern, _ in wanted]).value_counts()
    averages = tasks.groupby(["pattern", "attention"])["value"].agg(["mean", "size"]).reset_index()
    averages = averages[averages["size"] == averages["pattern"].map(per_pattern)]
    averages = averages.assign(task="average", value=averages["mean"])
    columns = ["pattern", "attention", "task", "value"]
    return pd.concat([tasks[columns], averages[columns]], ignore_index=True)
