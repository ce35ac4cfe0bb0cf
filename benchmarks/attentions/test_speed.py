"""Forward and backward beside the straightforward form: `make bench-attentions`."""

import pytest
import torch

from benchmarks.attentions.collected import Speed
from benchmarks.attentions.entries import CASES, OURS, PLAIN, build, prepare
from benchmarks.timing import Race, cpu_seconds, paired, spread

BATCH = 2
LENGTHS = (1024, 4096)
ROUNDS = 9
BUDGET_S = 12.0
"""For the rounds of both forms of one case and length; three are run in any case."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_the_straightforward_form(benchmark, collected, case, length):
    torch.manual_seed(length)
    contenders = {
        name: lambda attend=attend: prepare(attend, BATCH, length)
        for name, attend in build(case).items()
    }
    for prepared in contenders.values():
        prepared()()
    one = sum(cpu_seconds(prepared()) for prepared in contenders.values())
    rounds = max(3, min(ROUNDS, int(BUDGET_S / one)))
    race = Race(contenders, OURS, dict.fromkeys(contenders, rounds), cpu_seconds, seed=length)
    benchmark.group = f"L={length}"
    benchmark.pedantic(race.lead, setup=race.setup, rounds=rounds)
    race.finish()
    collected.speeds.append(Speed(case, length, race.seconds))
    ratio = spread(paired(race.seconds[PLAIN], race.seconds[OURS]))
    benchmark.extra_info["plain_over_ours"] = ratio._asdict()
