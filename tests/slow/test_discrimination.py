"""Every (task, pattern) pair measures attention at scale small: about a quarter of an hour."""

import subprocess
import sys

import pytest

from cab.cli.tables import headline_metrics
from cab.registries import TASKS
from cab.scoring.quality import discrimination, scores
from cab.scoring.results import load_results
from cab.store import ResultStore


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_softmax_beats_none_clearly_everywhere(tmp_path):
    words = "run --attn softmax --attn none --pattern all --measure quality --scale small --out"
    command = [sys.executable, "-m", "cab", *words.split(), str(tmp_path)]
    subprocess.run(command, check=True)
    results = load_results(ResultStore(tmp_path))
    headline = headline_metrics()
    for info in TASKS.infos():
        for pattern in info.patterns:
            table = scores(results, pattern.value, "small", "cpu")
            found = discrimination(table, info.id, headline[info.id][0])
            assert found is not None
            assert found.verdict, f"{info.id} {pattern}: {found.ratio:.1f}"
