"""Write docs/tasks.md from the registry, the data manifest and the reference results.

python docs/build_tasks.py           # write
python docs/build_tasks.py --check   # exit code 1 where the file is stale
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import torch

from cab import Attention, Recipe, Slots, Task
from cab.controls import REFERENCE_CONTROLS
from cab.info import Scale, TaskInfo
from cab.patterns import Pattern
from cab.registries import ATTENTIONS, TASKS
from cab.result_sources import reference_store
from cab.scoring.quality import discrimination, scores
from cab.scoring.reference_lines import reference_lines
from cab.scoring.results import Results, load_results
from cab.sheets.words import plus_minus
from cab.track import Setting
from tasks.data.embedded import SPLITS, dataset, names

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "tasks.md"

HEAD = """# Tasks

<!-- Written by docs/build_tasks.py from the registry and results/reference; do not edit. -->

In a run for a pattern, the candidate takes the slots of that pattern and softmax keeps all others.
Everything else - initial shared weights, data order, dropout, recipe - is the same for every
attention under one seed. The checkpoint is chosen on validation data, the numbers are of test data.

A (task, pattern) pair measures attention only if `softmax` beats `none` clearly: on the task's
first metric the gap must be at least four times the larger of the two standard deviations over
seeds, or leaderboards leave the pair out. `softmax-exact` computes the same function as `softmax`
by its plain formula: what the two differ by is noise. The tables below show it at scale `small`,
{seeds} seeds on a CPU, mean ± half of the 95 % interval (Student's t over seeds), measured by

    {command}

and stored in `results/reference`.

A pair that has been found not to measure attention, whose backbone has other ways to what attention
would bring, is retired: it stands in parentheses here and in `cab list tasks`, its section says why
with the numbers, and it is measured and ranked only where the task is named (`--task ID`).
"""

PROBES = """# Probes

Each isolates one ability on a problem with a known ceiling. They are run and ranked on their own
(`--task probes`) and do not enter the headline index; [findings.md](findings.md) has their sweeps,
beside what papers claim. References are computed on the tested problems: one draw of
them for all seeds, or one for each where a probe says so.
"""

SETTING = Setting("small", "cpu")
ENTRIES = REFERENCE_CONTROLS
OF_PROBES = ("softmax", "none", "linear-elu")

COMMAND = f"cab run {' '.join(f'--attn {e}' for e in ENTRIES)} --pattern all --measure quality"


def main() -> int:
    """Write the page, or compare it with what is there."""
    text = page()
    if "--check" in sys.argv[1:]:
        if TARGET.read_text(encoding="utf-8") == text:
            return 0
        print("docs/tasks.md is stale: run `make docs`", file=sys.stderr)
        return 1
    TARGET.write_text(text, encoding="utf-8")
    return 0


def page() -> str:
    """The whole page."""
    results = load_results(reference_store())
    seeds = results.rows["seed"].nunique()
    infos = sorted(TASKS.infos(), key=lambda info: (info.probe, info.id))
    parts = [HEAD.format(seeds=seeds, command=COMMAND), _overview(infos)]
    for info in infos:
        if info.probe and PROBES not in parts:
            parts.append(PROBES)
        parts.append(_task(info, results))
    parts.append(_data())
    return "\n".join(parts)


def _overview(infos: list[TaskInfo]) -> str:
    lines = ["| task | " + " | ".join(p.abbreviation for p in Pattern) + " | data |"]
    lines.append("|---|" + "---|" * (len(Pattern) + 1))
    for info in infos:
        marks = [_mark(info, p) for p in Pattern]
        name = f"[{info.id}](#{info.id})" + (" (probe)" if info.probe else "")
        lines.append(f"| {name} | " + " | ".join(marks) + f" | {info.dataset} |")
    return "\n".join(lines) + "\n"


def _mark(info: TaskInfo, pattern: Pattern) -> str:
    backbone = info.backbones.get(pattern, "")
    return f"({backbone})" if pattern in info.retired else backbone


def _task(info: TaskInfo, results: Results) -> str:
    lines = [f"## {info.id}\n", f"**{info.title}.** {info.description}\n"]
    for metric in info.metrics:
        better = "higher" if metric.higher_is_better else "lower"
        index = "" if metric.headline else "; not in the index"
        unit = f"{metric.unit}, " if metric.unit else ""
        lines.append(f"* `{metric.name}` ({unit}{better} is better{index}): {metric.help}")
    lines.append("")
    known = [r for r in info.references if info.metric(r.metric).headline]
    if known:
        lines += [f"* Reference `{r.name}`, of {r.metric}: {r.help}" for r in known]
        lines.append("")
    if info.retired:
        lines += [f"* Retired on {p.value}: {why}" for p, why in info.retired.items()]
        lines.append("")
    if info.differences:
        lines.append(f"Differs from CAB's task: {info.differences}\n")
    if info.data_dir:
        lines.append(f"`--data-dir`: {info.data_dir}\n")
    lines += [_measured(info, results), _recipe(info)]
    return "\n".join(lines)


def _measured(info: TaskInfo, results: Results) -> str:
    rows: list[str] = []
    known: list[str] = []
    entries = OF_PROBES if info.probe else ENTRIES
    for pattern in Pattern:
        if pattern not in info.backbones:
            continue
        scored = scores(results, SETTING.track(pattern))
        scored = scored[scored["task"] == info.id]
        for metric in info.metrics:
            if info.probe and not metric.headline:
                continue  # sweeps are for docs/findings.md
            part = scored[scored["metric"] == metric.name]
            if part.empty:
                continue
            values = [_cell(part, entry) for entry in entries]
            found = discrimination(scored, info.id, metric.name)
            ratio = "-" if found is None else f"{found.ratio:.1f}"
            if found is not None and metric is info.metrics[0] and found.verdict is False:
                ratio += ", left out"
            rows.append(f"| {pattern.value} | {metric.name} | {' | '.join(values)} | {ratio} |")
        lines = reference_lines(results, SETTING.track(pattern), info.id)
        known += [
            f"* `{line.name}` on {pattern.value}: {line.metric} {plus_minus(line.value)}"
            for line in lines
            if info.metric(line.metric).headline
        ]
    if not rows:
        return ""
    head = f"| pattern | metric | {' | '.join(entries)} | gap / spread |"
    table = [head, "|---|---|" + "---|" * (len(entries) + 1), *rows, ""]
    return "\n".join([*table, *known, ""] if known else table)


def _cell(part: pd.DataFrame, entry: str) -> str:
    from cab.scoring.intervals import mean_interval

    values = part[part["entry"] == entry]["value"].to_numpy(float)
    return plus_minus(mean_interval(values)) if len(values) else "-"


def _recipe(info: TaskInfo) -> str:
    task_class = TASKS.load(TASKS.resolve(info.id))
    columns = ("scale", "pattern", "parameters", "steps", "batch", "learning rate", "schedule",
               "queries", "keys")  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    softmax = ATTENTIONS.load(ATTENTIONS.resolve("softmax"))
    for scale in Scale:
        if scale not in info.scales:
            continue
        for pattern in info.patterns:
            task = task_class(pattern, scale)
            recipe, (queries, keys) = task.recipe, task.length()
            lines.append(
                f"| {scale} | {pattern.value} | {_parameters(task, softmax)} | {recipe.steps} | "
                f"{_batch(recipe)} | {recipe.learning_rate:g} | {recipe.schedule} | {queries} | "
                f"{keys} |"
            )
    return "\n".join(lines) + "\n"


def _parameters(task: Task, softmax: type[Attention]) -> str:
    """Of the backbone with softmax in its slots."""
    with torch.device("meta"):  # shapes without memory
        model = task.build(Slots(task.pattern, softmax, softmax))
    return f"{sum(p.numel() for p in model.parameters()):,}"


def _batch(recipe: Recipe) -> str:
    size = str(recipe.batch_size)
    size += f" x {recipe.accumulate}" if recipe.accumulate > 1 else ""
    return size + (", bf16" if recipe.precision == "bfloat16" else "")


def _data() -> str:
    lines = [
        "## Embedded data\n",
        "`cab data info NAME` tells the rest: attribution, hash, notes, how it is built.\n",
        "| name | what | licence | rows | size | train | validation | test |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in names():
        data = dataset(name)
        splits = " | ".join(_split_size(data.splits[split]) for split in SPLITS)
        lines.append(
            f"| {name} | {data.title} | {data.licence} | {data.rows} | "
            f"{data.bytes / 1024:.0f} KiB | {splits} |"
        )
    lines.append("")
    lines += [f"* **{name}**: {dataset(name).split_rule}" for name in names()]
    return "\n".join(lines) + "\n"


def _split_size(members: tuple[str, ...]) -> str:
    first, colon, end = members[0].partition(":")
    if len(members) == 1 and colon and first.isdigit() and end.isdigit():
        return f"{int(end) - int(first)} rows"
    return f"{len(members)} items"


if __name__ == "__main__":
    sys.exit(main())
