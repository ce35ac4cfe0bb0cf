"""One decode step: the one-pass form, and the parallel form with a single query."""

import pytest
import torch

from attentions.lla.decoding import decode_local_linear
from attentions.lla.residual import ResidualMonitor
from attentions.lla.solvers import Budget, choose_solver, local_linear_attention
from benchmarks.lla.collected import Decoding
from benchmarks.timing import Race, cpu_seconds, paired, planned_rounds, spread

HEADS = 4
BUDGET = Budget(iterations=64, tolerance=1e-5)
ONE_PASS, PARALLEL = "one pass", "one query in parallel form"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("length", [1024 * 2**i for i in range(5)])
@pytest.mark.parametrize("dim", [32, 64])
def test_decode(benchmark, collected, dim, length):
    torch.manual_seed(length)
    monitor, ridge = ResidualMonitor("raise the iterations"), torch.ones(HEADS)

    def one_pass():
        q, k, v = draw()
        return lambda: decode_local_linear(q, k, v, ridge, scale=dim**-0.5)

    def parallel():
        q, k, v = draw()
        solver = choose_solver(q, v, 1.0)
        return lambda: local_linear_attention(
            q, k, v, ridge, scale=dim**-0.5, causal=True, solver=solver, budget=BUDGET,
            monitor=monitor,
        )  # fmt: skip

    def draw():
        return (torch.randn(HEADS, rows, dim) for rows in (1, length, length))

    contenders = {ONE_PASS: one_pass, PARALLEL: parallel}
    for prepare in contenders.values():
        prepare()()
    expected = {name: cpu_seconds(prepare()) for name, prepare in contenders.items()}
    rounds = dict.fromkeys(contenders, min(planned_rounds(expected, 1.0, 31).values()))
    race = Race(contenders, ONE_PASS, rounds, cpu_seconds, seed=length)
    benchmark.group = f"decode, D={dim}, L={length}"
    benchmark.pedantic(race.lead, setup=race.setup, rounds=rounds[ONE_PASS])
    race.finish()
    collected.decodings.append(Decoding(dim, length, race.seconds))
    ratio = spread(paired(race.seconds[PARALLEL], race.seconds[ONE_PASS]))
    benchmark.extra_info["parallel_over_one_pass"] = ratio._asdict()
