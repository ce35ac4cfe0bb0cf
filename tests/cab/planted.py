"""Planted changes in a copy of the suite, and what they do to its hashes.

A program of its own: ``python planted.py FOLDER`` with a copy of the suite on its path; it prints a
JSON object, the names of the hashes that each change moved.
"""

import ast
import json
import re
import shutil
import sys
from pathlib import Path


def insert(path, name, line):
    """A statement at the start of a function (``Class.method`` for one of a class)."""
    text = path.read_text()
    body = ast.parse(text).body
    for part in name.split("."):
        node = next(n for n in body if getattr(n, "name", "") == part)
        body = node.body
    first = body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and len(body) > 1:
        first = body[1]
    lines = text.splitlines(keepends=True)
    lines.insert(first.lineno - 1, " " * first.col_offset + line + "\n")
    path.write_text("".join(lines))


def replace(path, old, new):
    text = path.read_text()
    assert re.search(old, text), (path, old)
    path.write_text(re.sub(old, new, text, count=1))


def append(path, text):
    path.write_text(path.read_text() + text)


def move(root, old, new):
    """A module to another place, with everything that imports it."""
    source = root.joinpath(*old.split(".")).with_suffix(".py")
    target = root.joinpath(*new.split(".")).with_suffix(".py")
    target.parent.mkdir(exist_ok=True)
    shutil.move(source, target)
    for path in root.rglob("*.py"):
        text = path.read_text()
        if old in text:
            path.write_text(re.sub(rf"\b{re.escape(old)}\b", new, text))


def rename(root, old, new):
    """A definition, everywhere."""
    for path in root.rglob("*.py"):
        text = path.read_text()
        if old in text:
            path.write_text(re.sub(rf"\b{old}\b", new, text))


def split(root):
    """A function to a module of its own."""
    path = root / "attentions/shared/masks.py"
    text = path.read_text()
    node = next(n for n in ast.parse(text).body if getattr(n, "name", "") == "causal_mask")
    lines = text.splitlines(keepends=True)
    own = "".join(lines[node.lineno - 1 : node.end_lineno])
    head = "from __future__ import annotations\n\nimport torch\nfrom torch import Tensor\n\n\n"
    (root / "attentions/causal.py").write_text(head + own)
    rest = "".join(lines[: node.lineno - 1] + lines[node.end_lineno :])
    rest = rest.replace(
        "import torch\n", "import torch\n\nfrom attentions.causal import causal_mask\n", 1
    )
    path.write_text(rest)


def chart_colour(root):
    path = root / "tasks/artifacts/charts.py"
    replace(path, r"_CELL = 44", "_CELL = 45")
    insert(path, "curves", "colour = '#123456'")


NUMBERS = {
    "a default of Recipe": lambda r: replace(
        r / "cab/task_contract.py", r"warmup_steps: int = \d+", "warmup_steps: int = 400"
    ),
    "the recipe's constructor": lambda r: replace(
        r / "cab/task_contract.py", r"averaging: float = 0.0", "averaging: float = 0.9"
    ),
    "the schedule's end": lambda r: replace(
        r / "runners/training.py", r"min\(1.0, step / recipe.steps\)", "step / recipe.steps"
    ),
    "averaging": lambda r: replace(r / "runners/training.py", r"step \+ 9", "step + 10"),
    "the choice of a checkpoint": lambda r: insert(
        r / "runners/training.py", "better", "higher = not higher"
    ),
    "how slots are seeded": lambda r: insert(r / "cab/slots.py", "Slots.build", "self._built += 1"),
    "how a stream is derived": lambda r: insert(r / "cab/seeds.py", "derive", "seed = seed + 1"),
    "an engine": lambda r: insert(
        r / "attentions/shared/windows.py", "windowed_softmax_attention", "q = q * 2"
    ),
    "an engine's private part": lambda r: insert(
        r / "attentions/shared/windows.py", "_weights", "q = q * 2"
    ),
    "an option's default": lambda r: replace(
        r / "attentions/local.py", r"window: int = \d+\)", "window: int = 3)"
    ),
    "how options are cast": lambda r: insert(r / "cab/options.py", "_cast", "default = 1"),
    "a task's loss": lambda r: insert(
        r / "tasks/language_modeling/task.py", "LanguageModeling.loss", "batch = dict(batch)"
    ),
    "which windows are tested": lambda r: replace(
        r / "tasks/language_modeling/task.py", r"TWICE \* self._size.length", "self._size.length"
    ),
    "a shared block": lambda r: insert(
        r / "tasks/backbones/multihead.py", "MultiHeadAttention.forward", "scale = 2"
    ),
    "the metric that chooses": lambda r: replace(
        r / "tasks/language_modeling/task.py", r"Metric\(\s*\"bits_per_byte\"", 'Metric("other"'
    ),
    "something changed from outside": lambda r: append(
        r / "attentions/shared/masks.py",
        "\nimport attentions.shared.exact\n\nattentions.shared.exact.SCALE = 3\n",
    ),
    "a class changed after it was made": lambda r: append(
        r / "attentions/local.py", "\nLocalAttention.forward = LocalAttention.reference\n"
    ),
    "the base class": lambda r: insert(
        r / "cab/attention_contract.py", "Attention.__init__", "heads = spec.heads"
    ),
}

WORDS = {
    "a comment": lambda r: append(r / "attentions/local.py", "\n# a comment\n"),
    "a docstring": lambda r: replace(r / "attentions/shared/masks.py", r'"""', '"""Other words. '),
    "a chart's colour": chart_colour,
    "an unused helper": lambda r: append(
        r / "attentions/shared/masks.py", "\n\ndef unused(x):\n    return x\n"
    ),
    "an unused method": lambda r: replace(
        r / "attentions/local.py",
        r"    def flops",
        "    def unused(self): return 1\n\n    def flops",
    ),
    "a moved module": lambda r: move(r, "attentions.shared.windows", "attentions.windows"),
    "a moved module of the runners": lambda r: move(r, "runners.calibration", "runners.switching"),
    "a renamed file": lambda r: move(r, "attentions.shared.exact", "attentions.shared.plain"),
    "a renamed helper": lambda r: rename(r, "windowed_softmax_attention", "sliding_softmax"),
    "a renamed constant": lambda r: rename(r, "TWICE", "DOUBLE"),
    "a split file": split,
    "a new analysis": lambda r: insert(r / "runners/analysis/analyse.py", "analyse", "more = 1"),
    "a new entry in an engine": lambda r: append(
        r / "attentions/shared/windows.py", "\n\ndef dilated(q):\n    return q\n"
    ),
    "a new mechanism beside an engine": lambda r: append(
        r / "attentions/shared/windows.py",
        "\n\nfrom cab import Attention\n\n\nclass Other(Attention):\n"
        "    def forward(self, q, k, v, context=None):\n        return v\n",
    ),
    "samples": lambda r: insert(
        r / "tasks/language_modeling/task.py", "LanguageModeling.artifacts", "seed = 1"
    ),
    "words of an error": lambda r: replace(
        r / "attentions/local.py", r"window must be at least 1", "the window is 1 or more"
    ),
    "an annotation": lambda r: replace(
        r / "attentions/shared/masks.py",
        r"length_q: int, length_k: int",
        "length_q: 'int', length_k: int",
    ),
    "the record": lambda r: replace(
        r / "attentions/local.py", r'title="[^"]*"', 'title="Another title"'
    ),
    "the record of the task": lambda r: replace(
        r / "tasks/language_modeling/task.py", r'description="', 'description="More. '
    ),
    "a printed line": lambda r: insert(
        r / "attentions/shared/masks.py", "visible", "print('here')"
    ),
    "how rows are written": lambda r: insert(r / "runners/rows.py", "identity", "cell = cell"),
    "the dashboard": lambda r: append(r / "cab/cli/run.py", "\n\ndef other():\n    return 1\n"),
}


def hashes():
    from cab.code_hash import attention_hash, runner_hash, task_hash
    from cab.registries import TASKS

    TASKS._entries = None
    info = TASKS.resolve("language-modeling").info
    return {
        "attention": attention_hash("attentions.local:LocalAttention", "quality"),
        "task": task_hash("tasks.language_modeling.task:LanguageModeling", info),
        "runner": runner_hash("quality"),
    }


def main(root):
    spare = root.parent / "spare"
    shutil.copytree(root, spare)
    before = hashes()
    found = {}
    for name, change in (NUMBERS | WORDS).items():
        change(root)
        after = hashes()
        found[name] = sorted(n for n in before if before[n] != after[n])
        shutil.rmtree(root)
        shutil.copytree(spare, root)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
