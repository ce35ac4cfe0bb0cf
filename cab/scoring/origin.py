"""Which code measured some rows: suite versions and commits, for captions and footers."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import pandas as pd

TOLD_BY = ("recorded_at", "suite_version", "git_commit")
"""The columns of rows that tell it"""
_SHORT_COMMIT = 8
_MOST_COMMITS = 3


@dataclass(frozen=True)
class Origin:
    """Versions and commits that rows were measured with, the newest first."""

    versions: tuple[str, ...] = ()
    commits: tuple[str, ...] = ()

    def words(self) -> str:
        """``cab 0.1.0, commits 37246dc3, 304865f0, b9c3a649 and 6 others``."""
        version = f"cab {' and '.join(self.versions)}" if self.versions else "cab"
        commit = commits_words(self.commits) if self.commits else "commit not recorded"
        return f"{version}, {commit}"


def origin_of(rows: pd.DataFrame) -> Origin:
    """Where rows of a store come from; columns that they lack say nothing.

    Args:
        rows: with ``recorded_at``, and ``suite_version`` and ``git_commit`` where they were read.
    """
    found = []
    for name in ("suite_version", "git_commit"):
        words: tuple[str, ...] = ()
        if name in rows:
            newest = rows.groupby(name, observed=True)["recorded_at"].max()
            words = tuple(str(word) for word in newest.sort_values(ascending=False).index)
        found.append(words)
    versions, commits = found
    return Origin(versions, tuple(dict.fromkeys(map(short_commit, commits))))


def of_all(origins: Iterable[Origin]) -> Origin:
    """Versions and commits of all of them, each once."""
    every = list(origins)
    return Origin(
        tuple(dict.fromkeys(version for origin in every for version in origin.versions)),
        tuple(dict.fromkeys(commit for origin in every for commit in origin.commits)),
    )


def short_commit(commit: str) -> str:
    """Its first eight digits, with the mark of changed files behind them."""
    name, dash, mark = commit.partition("-")
    return name[:_SHORT_COMMIT] + dash + mark


def commits_words(commits: Collection[str]) -> str:
    """``commit a``, or ``commits a, b, c and 4 others``."""
    names = list(dict.fromkeys(commits))
    more = len(names) - _MOST_COMMITS
    noun = "commit" if len(names) == 1 else "commits"
    others = "" if more <= 0 else f" and {more} other{'' if more == 1 else 's'}"
    return f"{noun} {', '.join(names[:_MOST_COMMITS])}{others}"
