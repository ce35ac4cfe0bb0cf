"""Analytic FLOPs and bytes against torch's counter and against what operators read and write."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

import cab
from cab.attention_contract import AttentionShape
from cab.errors import ContractError
from cab.info import Family
from runners.efficiency.arithmetic import Arithmetic, arithmetic, reads_of
from runners.efficiency.calls import CallFactory
from runners.efficiency.roofline import Roofline, require_possible
from runners.efficiency.settings import EfficiencySettings
from runners.outcome import DisturbedError

HEADS, LENGTH, DIM = 2, 256, 16
CASES = [(info.id, pattern) for info in cab.attentions() for pattern in info.patterns]
# Their work goes through gathers, or is done element by element: torch's counter sees neither.
UNCOUNTED = {"prob-sparse", "decon-mlp", "idw-interp", "local-attender", "pt-vector", "s6-mix"}
# Their weights, or a part of the work, are of positions alone and serve the whole batch.
SHARED = {"linformer", "positional"}
# What tiles and whole blocks read beside what is needed is little at this length.
LONG = 2048


def fused(q, k, v, *_args, **_options):
    return sdpa_flop_count(q, k, v)


def in_place(_out, left, right, **_options):
    return 2 * math.prod(left) * right[-1]


# The counter knows the fused kernels of CUDA, and products that make a new tensor.
FORMULAS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: fused,
    torch.ops.aten.baddbmm_: in_place,
    torch.ops.aten.addmm_: in_place,
}


def build(name, pattern):
    torch.manual_seed(0)
    return cab.attention(
        name, pattern=pattern, heads=HEADS, head_dim=DIM, embed_dim=HEADS * DIM
    ).eval()


def factory(phase="forward", length=LENGTH):
    settings = EfficiencySettings((length,), 1, HEADS, DIM, torch.float32, 0.0, 1)
    generator = torch.Generator().manual_seed(0)
    return CallFactory(settings, length, phase, torch.device("cpu"), generator)


def counted(call, *inputs):
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        call(*inputs)
    return counter.get_total_flops()


@pytest.mark.parametrize("pattern", ["NS", "NC", "CC"])
@pytest.mark.parametrize("name", ["softmax", "flash"])
def test_flops_of_softmax_are_those_of_its_plain_reference(name, pattern):
    module = build(name, pattern)
    q, k, v = (torch.randn(3, HEADS, n, DIM) for n in (LENGTH, LENGTH, LENGTH))
    shape = AttentionShape(3, HEADS, LENGTH, LENGTH, DIM, DIM)
    assert module.flops(shape) == counted(module.reference, q, k, v)


@pytest.mark.parametrize("name", ["softmax", "flash"])
def test_causal_flops_are_half_of_what_the_counter_takes_for_dense(name):
    module = build(name, "CS")
    q, k, v = (torch.randn(1, HEADS, LENGTH, DIM) for _ in range(3))
    shape = AttentionShape(1, HEADS, LENGTH, LENGTH, DIM, DIM)
    assert 2 * module.flops(shape) == counted(module.reference, q, k, v)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [c for c in CASES if c[0] not in UNCOUNTED],
    ids=lambda x: getattr(x, "abbreviation", x),
)
def test_flops_agree_with_the_counter(name, pattern):
    module = build(name, pattern)
    tiled = name == "long-short" or module.info.family in (Family.SPARSE, Family.WINDOWED)
    length = LONG if tiled else LENGTH
    inputs = factory(length=length).prepare(module).inputs()
    flops = module.flops(AttentionShape(1, HEADS, length, length, DIM, DIM))
    found = counted(module, inputs.q, inputs.k, inputs.v, inputs.context)
    # The counter sees matrix products alone, and a masked half as if it were computed.
    most = 2.2 if tiled or pattern is cab.Pattern.CAUSAL_SELF else 1.1
    assert 0.6 * flops <= found <= most * flops


def test_flops_grow_with_batch_and_heads():
    for name, pattern in CASES:
        module = build(name, pattern)
        one = module.flops(AttentionShape(1, HEADS, LENGTH, LENGTH, DIM, DIM))
        four = module.flops(AttentionShape(4, HEADS, LENGTH, LENGTH, DIM, DIM))
        if name in SHARED:
            assert 2 * one < four < 4 * one
        else:
            assert four == pytest.approx(4 * one), name


def test_least_bytes_are_inputs_and_output():
    module = build("softmax", "NS")
    calls = factory()
    reads, traffic = reads_of(module, calls.prepare(module).inputs())
    numbers = HEADS * LENGTH * DIM
    work = arithmetic(module, calls, reads)
    assert work.least_bytes == 4 * 4 * numbers
    # The fused kernel also writes a logarithm for each row.
    assert traffic == 4 * (4 * numbers + HEADS * LENGTH)
    assert work.intensity == work.flops / work.least_bytes


def test_what_is_not_read_costs_no_bytes():
    module = build("s4d", "NS")
    reads, _ = reads_of(module, factory().prepare(module).inputs())
    assert (reads.q, reads.k, reads.v) == (False, False, True)
    nothing = build("none", "NS")
    reads, traffic = reads_of(nothing, factory().prepare(nothing).inputs())
    assert arithmetic(nothing, factory(), reads).least_bytes == traffic == 0


@pytest.mark.parametrize(("name", "pattern"), CASES, ids=lambda x: getattr(x, "abbreviation", x))
def test_no_entry_moves_less_than_the_least(name, pattern):
    module = build(name, pattern)
    calls = factory()
    reads, traffic = reads_of(module, calls.prepare(module).inputs())
    assert arithmetic(module, calls, reads).least_bytes <= traffic


def test_a_softmax_step_reads_its_cache_once():
    module = build("softmax", "CS")
    reads, _ = reads_of(module, factory().prepare(module).inputs())
    work = arithmetic(module, factory("decode"), reads)
    assert work.flops == 4 * HEADS * LENGTH * DIM
    assert work.least_bytes == 4 * 2 * HEADS * LENGTH * DIM


def QUIET():  # noqa: N802 - a constant
    """Cores that others keep busy on a quiet machine."""
    return 0.0


def test_a_time_below_the_roofline_is_invalid():
    roof = Roofline(flops=1e9, fastest_flops=1e9, memory_bandwidth=1e9, cache_bandwidth=1e10)
    work = Arithmetic(flops=1e6, least_bytes=1e3)
    require_possible(1.01e-3, work, roof, lambda: roof, QUIET)
    with pytest.raises(ContractError, match="invalid"):
        require_possible(0.9e-3, work, roof, lambda: roof, QUIET)
    # The machine was slower when its rates were taken.
    faster = Roofline(2e9, 2e9, 1e9, 1e10)
    require_possible(0.9e-3, work, roof, lambda: faster, QUIET)
    with pytest.raises(ContractError, match="invalid"):
        require_possible(0.9e-3, Arithmetic(1.0, 1e8), roof, lambda: roof, QUIET)


def test_a_busy_neighbour_makes_nobody_invalid():
    """The machine's own rate shows in one measurement of several."""
    slow, true = (Roofline(rate, rate, 1e9, 1e10) for rate in (1e9, 2e9))
    measured = iter([slow, slow, true])
    require_possible(0.9e-3, Arithmetic(1e6, 1e3), slow, lambda: next(measured), QUIET)
    assert not list(measured)


@pytest.mark.parametrize("busy", [None, 0.3, 2.0])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.11])
def test_rates_of_a_busy_machine_judge_nobody(busy, share):
    roof, work = Roofline(1e9, 1e9, 1e9, 1e10), Arithmetic(flops=1e6, least_bytes=1e3)
    with pytest.raises(DisturbedError, match="not judged"):
        require_possible(share * 1e-3, work, roof, lambda: roof, lambda: busy)


def test_what_no_neighbour_explains_is_invalid_on_a_busy_machine():
    roof, work = Roofline(1e9, 1e9, 1e9, 1e10), Arithmetic(flops=1e6, least_bytes=1e3)
    with pytest.raises(ContractError, match="invalid"):
        require_possible(0.9e-4, work, roof, lambda: roof, lambda: 2.0)
