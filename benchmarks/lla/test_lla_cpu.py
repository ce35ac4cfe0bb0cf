"""Local Linear Attention beside its plain forms and softmax attention: `make bench-lla`."""

import pytest
import torch

from benchmarks.lla.collected import Point
from benchmarks.lla.mechanisms import EINSUM, MECHANISMS, OURS, PHASES, covariance_flops, prepare
from benchmarks.lla.memory import peak_bytes
from benchmarks.lla.report import TARGET_LENGTH
from benchmarks.memory import fits
from benchmarks.neighbours import Neighbours
from benchmarks.timing import Race, cpu_seconds, gemm, paired, planned_rounds, spread

LENGTHS = (1024, 2048, 4096, 8192)
WARM_LENGTH = 1024
BUDGET_S = 4.0
"""For the rounds of one mechanism at one length and phase; three rounds are run in any case."""
LONGEST_CALL_S = 8.0
"""Expected of a call: beyond it a mechanism is left out where no target needs it."""
LONGEST_RACE_S = 20.0
"""For all rounds of a mechanism that turn out to be slower than expected."""
NEEDED = {(OURS, length) for length in LENGTHS} | {(EINSUM, TARGET_LENGTH)}
ROUNDS = 15
GEMM, GEMM_SIZE = "gemm", 2048


@pytest.mark.timeout(900)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("phase", PHASES)
def test_against_plain_forms(benchmark, collected, fresh_processes, phase, length):
    torch.manual_seed(length)
    point = Point(length, phase)
    built, expected = {}, {}
    for name, mechanism in MECHANISMS.items():
        if not fits(mechanism.peak_bytes(length, phase)):
            point.skipped[name] = "does not fit in memory"
            continue
        attend = mechanism.build()
        seconds = warm_up(attend, phase) * (length / WARM_LENGTH) ** 2
        if seconds > LONGEST_CALL_S and (name, length) not in NEEDED:
            point.skipped[name] = f"not tried: about {seconds:.0f} s a call"
            continue
        built[name], expected[name] = attend, seconds

    product, flops = gemm(GEMM_SIZE, torch.device("cpu"), torch.float32)
    expected[GEMM] = cpu_seconds(product())
    contenders = {name: lambda a=a: prepare(a, length, phase) for name, a in built.items()}
    rounds = planned_rounds(expected, BUDGET_S, ROUNDS)
    rounds[OURS] = rounds[GEMM] = max(5, min(ROUNDS, int(2 * BUDGET_S / expected[OURS])))
    rounds = {name: min(count, rounds[OURS]) for name, count in rounds.items()}
    race = Race(contenders | {GEMM: product}, OURS, rounds, cpu_seconds, length, LONGEST_RACE_S)
    benchmark.group = f"{phase}, L={length}"
    neighbours = Neighbours()
    benchmark.pedantic(race.lead, setup=race.setup, rounds=rounds[OURS])
    race.finish()
    point.others_cores = neighbours.cores()

    point.gemm_rates = [flops / seconds for seconds in race.seconds.pop(GEMM)]
    point.ideal_seconds = [covariance_flops(length) / rate for rate in point.gemm_rates]
    point.seconds = race.seconds
    threads = torch.get_num_threads()
    point.peaks = {
        name: fresh_processes.run(peak_bytes, name, length, phase, threads) for name in built
    }
    collected.points.append(point)
    benchmark.extra_info |= summary(point)


def warm_up(attend, phase):
    """Seconds of a second call, at a length that takes little time."""
    prepare(attend, WARM_LENGTH, phase)()
    return cpu_seconds(prepare(attend, WARM_LENGTH, phase))


def summary(point):
    """What pytest-benchmark stores beside its own numbers."""
    ours = point.seconds[OURS]
    return {
        "median_s": {name: spread(seconds).median for name, seconds in point.seconds.items()},
        "time_over_ours": {
            name: spread(paired(seconds, ours))._asdict() for name, seconds in point.seconds.items()
        },
        "ours_over_gemm_ideal": spread(paired(ours, point.ideal_seconds))._asdict(),
        "gemm_flops_per_s": spread(point.gemm_rates).median,
        "peak_bytes": point.peaks,
        "skipped": point.skipped,
        "others_cores": point.others_cores,
    }
