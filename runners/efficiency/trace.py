"""The deterministic number beside peak memory: what a call allocates and frees, in order.

torch's profiler records every allocation, those inside fused kernels included, so the running sum
does not depend on what the process held before, on pages or on the allocator. It sees no memory
that a library takes by itself.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile

from cab import Attention, DecodeState
from runners.efficiency.inputs import Inputs


def traced_peak(call: Callable[[], object]) -> int:
    """Bytes by which the sum of allocations on a CPU rises during a call."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        out = call()
    assert recorded.profiler is not None
    events = recorded.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    del out
    level = peak = 0
    for _, change in changes:
        level += change
        peak = max(peak, level)
    return peak


def saved_bytes(module: Attention, inputs: Inputs) -> int:
    """Bytes that a forward pass keeps for its backward pass, beyond inputs and parameters."""
    own = {x.untyped_storage().data_ptr() for x in _tensors(inputs)}
    own |= {x.untyped_storage().data_ptr() for x in (*module.parameters(), *module.buffers())}
    kept: dict[int, int] = {}

    def pack(saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        # Without its history: a result that is saved by its own node would keep itself alive.
        return saved.detach()

    with saved_tensors_hooks(pack, lambda saved: saved):
        out = module(inputs.q, inputs.k, inputs.v, inputs.context)
    del out
    return sum(kept.values())


def state_bytes(state: DecodeState) -> int:
    """Bytes of the tensors that a decoding state holds, each storage once."""
    found: dict[int, int] = {}
    _collect(vars(state), found)
    return sum(found.values())


def _collect(held: object, found: dict[int, int]) -> None:
    if isinstance(held, Tensor):
        # A view of a larger storage keeps all of it.
        found[held.untyped_storage().data_ptr()] = held.untyped_storage().nbytes()
    elif isinstance(held, dict):
        for value in held.values():
            _collect(value, found)
    elif isinstance(held, list | tuple):
        for value in held:
            _collect(value, found)
    elif isinstance(held, DecodeState):
        _collect(vars(held), found)


def _tensors(inputs: Inputs) -> list[Tensor]:
    c = inputs.context
    return [x for x in (inputs.q, inputs.k, inputs.v, c.query_input, c.key_input) if x is not None]
