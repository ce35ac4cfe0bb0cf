"""Which (task, pattern) pairs measure attention at scale small: about an hour on two cores."""

import subprocess
import sys

import pytest

from cab.patterns import Pattern
from cab.registries import TASKS
from cab.scoring.boards import headline_metrics
from cab.scoring.quality import DISCRIMINATION, discrimination, scores
from cab.scoring.results import load_results
from cab.store import ResultStore
from cab.track import Track

LEAST = 3
"""Tasks on real data that must tell attention from none, per pattern"""


@pytest.mark.slow
@pytest.mark.timeout(3 * 3600)
def test_softmax_beats_none_clearly_on_enough_tasks_of_every_pattern(tmp_path):
    words = "run --attn softmax --attn none --pattern all --measure quality --scale small --out"
    command = [sys.executable, "-m", "cab", *words.split(), str(tmp_path)]
    subprocess.run(command, check=True)
    results = load_results(ResultStore(tmp_path))
    headline = headline_metrics()
    for pattern in Pattern:
        table = scores(results, Track(pattern.value, "small", "cpu"))
        ratios = {}
        for info in TASKS.infos():
            if pattern not in info.patterns or pattern in info.retired or info.probe:
                continue  # which are not run unless their task is named
            found = discrimination(table, info.id, headline[info.id][0])
            assert found is not None, (info.id, pattern)
            if info.dataset != "generated":
                ratios[info.id] = found.ratio
        assert sum(ratio >= DISCRIMINATION for ratio in ratios.values()) >= LEAST, (pattern, ratios)
