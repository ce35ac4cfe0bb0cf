"""From which head dim on conjugate gradients are cheaper than the exact solve, on a CPU."""

import pytest
import torch

from attentions.lla.residual import ResidualMonitor
from attentions.lla.solvers import Budget, local_linear_attention
from benchmarks.lla.collected import Crossover
from benchmarks.lla.iterations import counted_products
from benchmarks.timing import Race, cpu_seconds, paired, planned_rounds, spread

HEADS, LENGTH = 1, 2048
BUDGET = Budget(iterations=64, tolerance=1e-5)
BUDGET_S = 2.5
SOLVERS = ("cholesky", "cg")


@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::attentions.lla.residual.ResidualWarning")
@pytest.mark.parametrize("ridge", [1.0, 0.1, 0.01])
@pytest.mark.parametrize("dim", [16, 32, 64, 128])
def test_solvers(benchmark, collected, dim, ridge):
    torch.manual_seed(dim)
    monitor = ResidualMonitor("raise the iterations")

    def prepare(solver):
        q, k, v = (torch.randn(HEADS, LENGTH, dim) for _ in range(3))

        def call():
            return local_linear_attention(
                q, k, v, torch.full((HEADS,), ridge), scale=dim**-0.5, causal=True,
                solver=solver, budget=BUDGET, monitor=monitor,
            )  # fmt: skip

        return call

    with counted_products() as products:
        expected = {solver: cpu_seconds(prepare(solver)) for solver in SOLVERS}
    contenders = {solver: lambda s=solver: prepare(s) for solver in SOLVERS}
    rounds = planned_rounds(expected, BUDGET_S, 9)
    rounds = dict.fromkeys(SOLVERS, min(rounds.values()))
    race = Race(contenders, "cholesky", rounds, cpu_seconds)
    benchmark.group = f"solvers, L={LENGTH}, D={dim}, ridge={ridge}"
    benchmark.pedantic(race.lead, setup=race.setup, rounds=rounds["cholesky"])
    race.finish()
    result = Crossover(dim, ridge, race.seconds, sum(products) / len(products), monitor.last.item())
    collected.crossovers.append(result)
    benchmark.extra_info |= {
        "cg_over_cholesky": spread(paired(race.seconds["cg"], race.seconds["cholesky"]))._asdict(),
        "products": result.products,
        "residual": result.residual,
    }
