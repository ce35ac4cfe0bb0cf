"""How long ``cab bench`` takes at two revisions of this repository, as a user waits for it.

    python -m benchmarks.bench_command BASE [HEAD] [--repeats 5] [-- WORDS OF cab bench]

BASE and HEAD are revisions of git; without HEAD the working tree as it is. Both run the same
command in an empty folder, by default three lengths of the forward pass, in turns and in an order
drawn anew for every repeat. What is timed is the whole process: start, examination, calls, tables
and drawings. Of a first run of each, which fills the cache of plans, nothing is kept. How long one
takes depends on how busy the machine is, so take an idle one.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.compare import ROOT, Checkout
from cab.scoring.intervals import process_interval

WORDS = (
    "--attn", "linear-elu", "--pattern", "causal-self", "--lengths", "512,1k,2k",
    "--phase", "forward", "--device", "cpu",
)  # fmt: skip
"""Of the command, unless others are given"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base")
    parser.add_argument("head", nargs="?", help="default: the working tree")
    parser.add_argument("--repeats", type=int, default=5)
    own, words = _split(sys.argv[1:])
    asked = parser.parse_args(own)
    order = random.Random(0)
    with ExitStack() as stack:
        trees = {
            "base": stack.enter_context(Checkout(asked.base)),
            "head": ROOT if asked.head is None else stack.enter_context(Checkout(asked.head)),
        }
        cache = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        seconds: dict[str, list[float]] = {name: [] for name in trees}
        for number in range(asked.repeats + 1):
            turn = list(trees)
            order.shuffle(turn)
            for name in turn:
                took = wall_seconds(trees[name], words or WORDS, cache / name)
                if number:
                    seconds[name].append(took)
    print(summary(seconds))
    return 0


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """What stands before ``--``, and what after it."""
    if "--" not in words:
        return list(words), []
    place = words.index("--")
    return list(words[:place]), list(words[place + 1 :])


def wall_seconds(tree: Path, words: Sequence[str], cache: Path) -> float:
    """Of one ``cab bench`` with the code of a folder.

    Args:
        tree: the folder.
        words: of the command, but for where its rows go.
        cache: folder of what planning finds out.

    Raises:
        SystemExit: it failed; what it said stands above.
    """
    paths = {"PYTHONPATH": str(tree), "CAB_CACHE": str(cache)}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "cab", "bench", *words, "--out", f"{folder}/rows"]
        began = time.perf_counter()
        done = subprocess.run(
            command, cwd=folder, env=os.environ | paths, capture_output=True, text=True
        )
        took = time.perf_counter() - began
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode} in {tree}")
    return took


def summary(seconds: Mapping[str, Sequence[float]]) -> str:
    """Medians, and the ratio of head to base with its interval over repeats."""
    lines = [
        f"{name}: median {statistics.median(values):.1f} s of {len(values)} runs "
        f"({min(values):.1f} to {max(values):.1f})"
        for name, values in seconds.items()
    ]
    pairs = zip(seconds["head"], seconds["base"], strict=True)
    found = process_interval([[head / base] for head, base in pairs])
    told = found.known and not found.low <= 1 <= found.high
    interval = f"{found.low:.3f} to {found.high:.3f}, 95 %" if found.known else "no interval"
    lines.append(f"head / base: {found.value:.3f} ({interval}){'' if told else ', not told apart'}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
