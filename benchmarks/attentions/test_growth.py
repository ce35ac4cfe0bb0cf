"""How time and peak memory of forward and backward grow with the length."""

import pytest
import torch

from benchmarks.attentions.collected import Growth
from benchmarks.attentions.entries import CASES, OURS, QUADRATIC, build, prepare
from benchmarks.attentions.memory import peak_bytes
from benchmarks.memory import growth_exponent
from benchmarks.timing import Race, cpu_seconds, spread

LENGTHS = (1024, 2048, 4096, 8192, 16384)
ROUNDS = 5


@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", [c for c in CASES if c.name not in QUADRATIC], ids=str)
def test_growth(benchmark, collected, fresh_processes, case):
    torch.manual_seed(0)
    attend = build(case)[OURS]
    # The lengths take turns, so that a slow moment of the machine does not bend the slope.
    contenders = {length: lambda n=length: prepare(attend, 1, n) for length in LENGTHS}
    for prepared in contenders.values():
        prepared()()
    race = Race(contenders, LENGTHS[-1], dict.fromkeys(LENGTHS, ROUNDS), cpu_seconds)
    benchmark.group = "growth"
    benchmark.pedantic(race.lead, setup=race.setup, rounds=ROUNDS)
    race.finish()
    seconds = {length: spread(race.seconds[length]).median for length in LENGTHS}
    threads = torch.get_num_threads()
    peaks = {n: fresh_processes.run(peak_bytes, *case, n, threads) for n in LENGTHS}
    collected.growths.append(Growth(case, seconds, peaks))
    benchmark.extra_info |= {
        "time_exponent": growth_exponent(seconds),
        "memory_exponent": growth_exponent(peaks),
    }
