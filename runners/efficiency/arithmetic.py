"""Arithmetic of a call: operations, the bytes that it cannot avoid to move, and their ratio.

Operations are the entry's own formula. The bytes are a lower bound that holds for any way of
computing the same: inputs that the mechanism reads are read once, the output is written once, and
in decoding the state is read once. Which inputs it reads is looked up in one traced call, since
some mechanisms ignore queries and keys. What an implementation moves beyond that - score matrices,
intermediate results - is traffic: counted operator by operator in a traced call.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from cab import Attention, AttentionShape
from runners.efficiency.calls import CallFactory
from runners.efficiency.inputs import Inputs

BACKWARD = 2.0
"""Operations of a backward pass relative to forward: two products for each one, the convention of
the field. What is computed again in the backward pass counts as time, not as useful work."""


@dataclass(frozen=True)
class Reads:
    """Which inputs a mechanism looks at, and whether its output is memory of its own."""

    q: bool
    k: bool
    v: bool
    query_input: bool
    key_input: bool
    writes: bool


@dataclass(frozen=True)
class Arithmetic:
    """Of one call; in decoding of one token."""

    flops: float
    """Analytic; a multiply-add counts as two"""
    least_bytes: float
    """Inputs read, state read, output written, each once"""

    @property
    def intensity(self) -> float:
        """FLOPs per byte, where bytes have to be moved at all."""
        return self.flops / self.least_bytes if self.least_bytes else 0.0


class Traffic(TorchDispatchMode):
    """Counts the bytes that operators read and write, and which storages they read.

    Views move nothing. A fused operator counts its arguments and results once, however often its
    kernel reads them.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # not annotated in torch
        self.bytes = 0
        self.read: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.is_view or func.namespace == "prim":
            return out
        # What is only asked for its shape is not read.
        made_like = any(word in func.name() for word in ("_like", "::new_"))
        before = [] if made_like else list(_tensors((args, kwargs)))
        self.read |= {x.untyped_storage().data_ptr() for x in before}
        self.bytes += sum(_dense_bytes(x) for x in before)
        self.bytes += sum(_dense_bytes(x) for x in _tensors(out))
        return out


def _tensors(tree: Any) -> Iterator[Tensor]:
    """Dense tensors; of a sparse matrix the three that it consists of."""
    for x in tree_iter(tree):
        if not isinstance(x, Tensor):
            continue
        if x.layout is torch.sparse_csr:
            yield from (x.crow_indices(), x.col_indices(), x.values())
        elif x.layout is torch.strided:
            yield x


def _dense_bytes(x: Tensor) -> int:
    """An expanded tensor is no larger than its storage."""
    return min(x.numel() * x.element_size(), x.untyped_storage().nbytes())


def reads_of(module: Attention, inputs: Inputs) -> tuple[Reads, int]:
    """What a forward call looks at, and the bytes that its operators move."""
    with torch.no_grad(), Traffic() as traffic:
        out = module(inputs.q, inputs.k, inputs.v, inputs.context)

    def read(x: Tensor | None) -> bool:
        return x is not None and x.untyped_storage().data_ptr() in traffic.read

    own = {x.untyped_storage().data_ptr() for x in (inputs.q, inputs.k, inputs.v)}
    context = inputs.context
    storage = out.untyped_storage()
    writes = storage.data_ptr() not in own and storage.nbytes() >= out.numel() * out.element_size()
    # A kernel of the mechanism's own is not seen: on a GPU whatever is computed reads all three.
    unseen = out.is_cuda and writes
    return Reads(
        unseen or read(inputs.q),
        unseen or read(inputs.k),
        unseen or read(inputs.v),
        read(context.query_input),
        read(context.key_input),
        writes,
    ), traffic.bytes


def arithmetic(module: Attention, calls: CallFactory, reads: Reads) -> Arithmetic | None:
    """Of a call of these sizes; None where the entry has no formula."""
    s, spec = calls.settings, module.spec
    length_q, length_k = calls.length, calls.source(module)
    size = s.dtype.itemsize
    if calls.phase == "decode":
        return _decoding(module, calls)
    shape = AttentionShape(s.batch, s.heads, length_q, length_k, s.head_dim, spec.value_dim)
    try:
        flops = float(module.flops(shape))
    except NotImplementedError:
        return None
    heads = s.batch * s.heads
    width = s.batch * (spec.embed_dim or 0)
    inputs = (
        reads.q * heads * length_q * s.head_dim
        + reads.k * heads * length_k * s.head_dim
        + reads.v * heads * length_k * spec.value_dim
        + reads.query_input * width * length_q
        # In self attention the layer input of queries and keys is one.
        + (reads.key_input and module.pattern.cross) * width * length_k
    )
    output = reads.writes * heads * length_q * spec.value_dim
    if calls.phase == "forward":
        return Arithmetic(flops, size * float(inputs + output))
    # The backward pass reads the inputs and the output's gradient, and writes one of each input.
    return Arithmetic((1 + BACKWARD) * flops, size * float(3 * inputs + 2 * output))


def _decoding(module: Attention, calls: CallFactory) -> Arithmetic | None:
    """Of one token: a call with one query; the state is read once.

    Of a mechanism with a growing cache one query to all keys; a state of fixed size is read and
    updated, which takes a multiply-add for each of its numbers to write and one to read.
    """
    s, length = calls.settings, calls.source(module)
    try:
        state = s.batch * module.state_size(length)
        longer = s.batch * module.state_size(2 * length)
    except NotImplementedError:
        return None
    fixed = state == longer
    if fixed:
        return Arithmetic(4.0 * state, float(s.dtype.itemsize * state))
    shape = AttentionShape(s.batch, s.heads, 1, length, s.head_dim, module.spec.value_dim)
    try:
        flops = float(module.flops(shape)) * (2 if module.pattern.causal else 1)
    except NotImplementedError:
        return None
    return Arithmetic(flops, float(s.dtype.itemsize * state))
