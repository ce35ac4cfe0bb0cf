"""A mechanism at two revisions of this repository, timed in turns: a ratio with an interval.

    python -m benchmarks.compare BASE [HEAD] --attn lla --pattern CS --length 1024

BASE and HEAD are revisions of git; without HEAD the working tree as it is. Both are checked out to
folders of their own, and a process of each waits for its turn: they are asked for one call each,
in an order drawn anew for every round, so that both meet the same moments of the machine. The
processes are started anew a few times, since the spread between processes is larger than within.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from cab.scoring.intervals import process_interval

ROOT = Path(__file__).resolve().parent.parent
SERVER = Path(__file__).resolve().with_name("compare_server.py")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base")
    parser.add_argument("head", nargs="?", help="default: the working tree")
    parser.add_argument("--attn", default="softmax-exact")
    parser.add_argument("--pattern", default="NS")
    parser.add_argument("--phase", choices=("forward", "forward_backward"), default="forward")
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--head-dim", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--processes", type=int, default=5)
    asked = parser.parse_args()
    order = random.Random(0)
    with ExitStack() as stack:
        trees = {
            "base": stack.enter_context(Checkout(asked.base)),
            "head": ROOT if asked.head is None else stack.enter_context(Checkout(asked.head)),
        }
        ratios, seconds = [], {"base": [], "head": []}
        for _ in range(asked.processes):
            with ExitStack() as pair:
                servers = {
                    name: pair.enter_context(Server(tree, asked)) for name, tree in trees.items()
                }
                rounds = [_round(servers, order) for _ in range(asked.rounds + 1)][1:]
            ratios.append([one["head"] / one["base"] for one in rounds])
            for name in seconds:
                seconds[name] += [one[name] for one in rounds]
    found = process_interval(ratios)
    for name, values in seconds.items():
        print(f"{name}: median {1e3 * statistics.median(values):.3f} ms of {len(values)} calls")
    print(
        f"head / base: {found.value:.3f} ({found.low:.3f} to {found.high:.3f}, 95 %, "
        f"{found.n} processes)"
    )
    if not found.known or found.low <= 1 <= found.high:
        print("not told apart")
    else:
        change = 100 * abs(math.expm1(math.log(found.value)))
        print(f"head is {change:.1f} % {'slower' if found.value > 1 else 'faster'}")
    return 0


def _round(servers: dict[str, Server], order: random.Random) -> dict[str, float]:
    turn = list(servers)
    order.shuffle(turn)
    return {name: servers[name].seconds() for name in turn}


class Checkout:
    """A revision in a folder of its own, for as long as it is needed."""

    def __init__(self, revision: str) -> None:
        self._revision = revision
        self._folder = tempfile.TemporaryDirectory()
        self._tree = Path(self._folder.name) / "tree"

    def __enter__(self) -> Path:
        _git("worktree", "add", "--detach", "--quiet", str(self._tree), self._revision)
        return self._tree

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _git("worktree", "remove", "--force", str(self._tree))
        self._folder.cleanup()


class Server:
    """A process that runs one revision's mechanism when it is asked."""

    def __init__(self, tree: Path, asked: argparse.Namespace) -> None:
        words = (
            asked.attn, asked.pattern, asked.phase, asked.length, asked.heads, asked.head_dim,
            asked.threads,
        )  # fmt: skip
        threads = str(asked.threads)
        self._process = subprocess.Popen(
            [sys.executable, str(SERVER), *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=tree,
            env=os.environ
            | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
        )
        origin = self._line()
        if Path(origin).resolve().parent.parent != tree.resolve():
            raise SystemExit(f"{origin} was imported in place of the one in {tree}")

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def seconds(self) -> float:
        """Of one call."""
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        return float(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise SystemExit("a process ended before its time; its message stands above")
        return line


def _git(*words: str) -> None:
    subprocess.run(["git", "-C", str(ROOT), *words], check=True)


if __name__ == "__main__":
    sys.exit(main())
