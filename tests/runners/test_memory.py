"""Peak memory, its trace, what is saved for backward, decoding states, and running out of it."""

import pytest
import torch

import cab
from cab.attention_context import AttentionContext
from cab.attention_contract import DecodeState
from runners.efficiency.calls import CallFactory
from runners.efficiency.inputs import Inputs
from runners.efficiency.memory import attempted_bytes, limit_memory, peak_memory
from runners.efficiency.settings import EfficiencySettings
from runners.efficiency.trace import saved_bytes, state_bytes, traced_peak

KIB, MIB = 2**10, 2**20


def calls(length, phase="forward", heads=8, dim=64):
    settings = EfficiencySettings((length,), 1, heads, dim, torch.float32, 0.0, 1)
    generator = torch.Generator().manual_seed(0)
    return CallFactory(settings, length, phase, torch.device("cpu"), generator)


def module(name, pattern="NS", heads=8, dim=64):
    return cab.attention(
        name, pattern=pattern, heads=heads, head_dim=dim, embed_dim=heads * dim
    ).eval()


@pytest.fixture(scope="module", autouse=True)
def warm():
    """torch prepares its profiler at the first use."""
    traced_peak(lambda: torch.ones(1))


def test_both_ways_see_the_score_matrix_of_plain_softmax():
    # B=1, H=8, L=2048, D=64 in float32: a 128 MiB matrix and a 4 MiB output.
    factory, exact = calls(2048), module("softmax-exact")
    factory.prepare(exact)()
    assert peak_memory(factory.prepare(exact), factory.device) == pytest.approx(132 * MIB, rel=0.03)
    assert traced_peak(factory.prepare(exact)) == pytest.approx(132 * MIB, rel=0.03)


def test_both_ways_see_the_output_and_scratch_of_fused_softmax():
    factory, fused = calls(2048), module("softmax")
    factory.prepare(fused)()
    assert peak_memory(factory.prepare(fused), factory.device) == pytest.approx(5 * MIB, rel=0.3)
    assert traced_peak(factory.prepare(fused)) == pytest.approx(5 * MIB, rel=0.15)


def test_the_trace_is_the_same_every_time():
    factory, lla = calls(256, "forward_backward", 2, 16), module("lla", "CS", 2, 16)
    assert len({traced_peak(factory.prepare(lla)) for _ in range(3)}) == 1


def test_the_trace_counts_what_is_alive_together():
    def one_after_the_other():
        for _ in range(5):
            torch.ones(MIB // 4)

    def together():
        return [torch.ones(MIB // 4) for _ in range(5)]

    assert traced_peak(one_after_the_other) == MIB
    assert traced_peak(together) == 5 * MIB


def test_saved_bytes_of_a_product():
    class Product(cab.Attention):
        def forward(self, q, k, v, context=None):
            weights = (q @ k.transpose(-1, -2)).exp()
            return weights @ v

    size, heads, length, dim = 4, 2, 64, 8
    product = Product(cab.AttentionSpec(cab.Pattern.NONCAUSAL_SELF, heads, dim))
    inputs = calls(length, "forward_backward", heads, dim).prepare(product).inputs()
    # exp saves its result, which the product saves too: one storage. q, k, v are inputs.
    assert saved_bytes(product, inputs) == size * heads * length * length


def test_what_saves_nothing_has_nothing_saved():
    none = module("none")
    assert saved_bytes(none, calls(64, "forward_backward").prepare(none).inputs()) == 0


@pytest.mark.parametrize("name", ["softmax", "linear-elu", "abc", "lla", "performer", "s4d"])
def test_declared_state_is_what_the_state_holds(name):
    attention, factory = module(name, "CS", 2, 16), calls(256, "decode", 2, 16)
    held = state_bytes(factory.prefilled(attention))
    assert held == pytest.approx(4 * attention.state_size(256), rel=0.1)


def test_a_view_in_a_state_keeps_its_storage():
    whole = torch.zeros(1000)
    state = DecodeState(1, {"a": whole[:10], "b": whole[10:20]})
    assert state_bytes(state) == 4000


def test_running_out_of_memory_is_an_error_that_tells_the_size():
    with limit_memory(), pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50, dtype=torch.uint8)
    assert attempted_bytes(caught.value) == 1 << 50
    # What there is can still be had, before and after.
    with limit_memory():
        torch.empty(1 << 20)
    torch.empty(1 << 20)


def test_the_size_is_read_from_a_gpus_message():
    error = RuntimeError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has ...")
    assert attempted_bytes(error) == int(2.5 * 2**30)
    assert attempted_bytes(RuntimeError("something else")) is None


def test_inputs_are_not_counted_as_saved():
    class KeepsInputs(cab.Attention):
        def forward(self, q, k, v, context=None):
            return q * k * context.query_input.view_as(q) * 1.0

    spec = cab.AttentionSpec(cab.Pattern.NONCAUSAL_SELF, 1, 8, embed_dim=8)
    q, k, v = (torch.randn(1, 1, 4, 8, requires_grad=True) for _ in range(3))
    inputs = Inputs(q, k, v, AttentionContext(query_input=torch.randn(1, 4, 8)))
    # q * k is saved for the gradient of the layer input's factor alone, which wants none.
    assert saved_bytes(KeepsInputs(spec), inputs) == 0
