"""Columns that several tables have, and the words that explain them: each is written down here
alone.
"""

from __future__ import annotations

from cab.controls import BASELINE
from cab.sheets.sheet import Column

LEVEL = "95 % interval"
MARKS = (
    "= not distinguishable from the entry above; ~ different on these tasks, other tasks may swap "
    "them"
)
"""What stands before a rank"""
WHO_MEASURED = (
    "Who measured: self-reported, whoever owns the results folder; reference, the project"
)

INDEX_IS = (
    "mean over tasks of the signed log-ratio to softmax, paired by seed; +0.1 is about 10 % better"
)
"""What the index and its intervals are"""
GENERAL_IS = "what other tasks of this kind and other seeds would give"
DENSITY_IS = "share of the visible pairs of query and key that a sparse entry reads"
"""Of its own account (`cab.density`), on the inputs of the measurement"""
DISTURBED_IS = "processes that were timed while others kept the machine busy"
HERE_IS = "what other seeds would give on these very tasks"

RANK = Column("#", right=True, page="Rank", help=MARKS)
RANKS = Column("ranks", right=True, keep=3, help="95 % interval of the rank")
ENTRY = Column("attention", page="Entry")
LABEL = Column("label", keep=1, key="label", help=WHO_MEASURED)
FAMILY = Column("family", keep=5)
GRADE = Column("grade")
INDEX = Column("index", right=True, key="index", help=INDEX_IS, more=True)
INTERVAL = Column(LEVEL, right=True)
HERE = Column("these tasks", right=True, keep=2, help=HERE_IS)
BEATS = Column(f"beats {BASELINE}", right=True, keep=1, more=True, number="beats_softmax")
SEEDS = Column("seeds", right=True, key="seeds")
SEEDS_LIST = Column("seeds")
SEEDS_BEHIND = "seeds: how many distinct ones are behind a p, the least and the most of a task"
TASK = Column("task")
METRIC = Column("metric")
VALUE = Column("value", right=True)
VERDICT = Column("verdict")
DENSITY = Column("density", right=True, keep=3, key="density", help=DENSITY_IS)
COST = Column("cost", right=True, more=False, number="cost")
PAYS = Column("pays")
PHASE = Column("phase")
LENGTH = Column("length", right=True, key="length")
LENGTH_WORDS = Column("length")
OUTCOME = Column("outcome")
MESSAGE = Column("message")
TIMES = Column("times", right=True, key="times")
PROCESSES = Column("processes", right=True, key="processes")
DISTURBED = Column("disturbed", right=True, help=DISTURBED_IS)
AVERAGE = Column("average", right=True, more=True, number="average")
TO_BASELINE = Column(f"to {BASELINE}", right=True, more=False, number="relative_cost")
DIFFERENCE = Column("difference", right=True)
P = Column("p", right=True)
P_OF_SEEDS = Column("p (seeds)", right=True)


def of_task(name: str, keep: int = 4) -> Column:
    """The score on a task."""
    return Column(name, right=True, keep=keep, key=name, page=name, more=True)
