"""What a mechanism learns, wherever it is kept.

A parameter budget counts what learns. `nn.Module.parameters` misses what lies in a list, a closure
or a plain attribute, what is made in the first call, what only `parameter_groups` knows, and what
an optimiser does not see at all: buffers that training changes.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cab.attention_contract import Attention
from cab.checks.case import Case

_DEPTH = 6
"""Containers in containers that are looked into"""
_UNITS = (str, bytes, int, float, complex, bool, torch.dtype, torch.device, types.ModuleType, type)


def held_tensors(module: nn.Module) -> list[Tensor]:
    """Every tensor that can be reached from a module's attributes: parameters, buffers, and those
    in lists, dictionaries, closures, partial functions and objects; each once.
    """
    found: dict[int, Tensor] = {}
    seen: set[int] = set()
    for value in _reach(module, seen, 0):
        found.setdefault(id(value), value)
    return list(found.values())


def _reach(value: object, seen: set[int], depth: int) -> Iterator[Tensor]:
    if isinstance(value, _UNITS) or value is None or id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield value
        return
    if isinstance(value, nn.Module):
        depth = 0
    if depth > _DEPTH:
        return
    for part in _parts(value):
        yield from _reach(part, seen, depth + 1)


def _parts(value: object) -> list[object]:
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, types.MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, types.FunctionType):
        cells = [c.cell_contents for c in value.__closure__ or () if _filled(c)]
        used = value.__code__.co_names
        globals_ = [value.__globals__[n] for n in used if n in value.__globals__]
        tensors = [x for x in globals_ if isinstance(x, Tensor | list | dict | tuple)]
        return [*cells, *(value.__defaults__ or ()), *tensors]
    parts: list[object] = list(getattr(value, "__dict__", {}).values())
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        names = (slots,) if isinstance(slots, str) else slots
        parts += [getattr(value, n) for n in names if hasattr(value, n)]
        if isinstance(value, nn.Module) and cls not in _BASES:
            parts += list(cls.__dict__.values())
    return parts


_BASES = (object, nn.Module, Attention)


def _filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def graph_leaves(out: Tensor) -> list[Tensor]:
    """Every leaf that requires a gradient in the graph of a result."""
    leaves: dict[int, Tensor] = {}
    seen: set[object] = set()
    pending: list[object] = [] if out.grad_fn is None else [out.grad_fn]
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, Tensor):
            leaves[id(leaf)] = leaf
        pending += [n for n, _ in getattr(node, "next_functions", ()) if n is not None]
    return list(leaves.values())


def all_parameters(module: nn.Module, out: Tensor | None = None) -> list[Tensor]:
    """Every tensor of a module that learns by gradient, registered or not; each once.

    Registered parameters, whatever requires a gradient in the module's reach, what
    `Attention.parameter_groups` hands to the optimiser, and, where the result of a training call
    is given, the leaves of its graph. Inputs of that call must not require a gradient, or be
    subtracted. What training changes without a gradient is found by `Snapshot`.

    Args:
        module: an attention, or a model with attentions inside.
        out: a result of the module in training mode.
    """
    found: dict[int, Tensor] = {id(p): p for p in module.parameters()}
    found |= {id(x): x for x in held_tensors(module) if x.requires_grad and x.is_leaf}
    for part in module.modules():
        if isinstance(part, Attention):
            for group in part.parameter_groups():
                params = group["params"]
                members = [params] if isinstance(params, Tensor) else list(params)
                found |= {id(p): p for p in members}
    if out is not None:
        found |= {id(x): x for x in graph_leaves(out)}
    return list(found.values())


def unregistered(module: nn.Module, out: Tensor | None = None) -> list[Tensor]:
    """Those of `all_parameters` that `module.parameters()` does not give."""
    registered = {id(p) for p in module.parameters()}
    return [p for p in all_parameters(module, out) if id(p) not in registered]


class Snapshot:
    """What a module holds besides parameters, to see what training changes of it."""

    def __init__(self, module: nn.Module) -> None:
        """Copy it."""
        self._module = module
        self._buffers = {name: b.detach().clone() for name, b in module.named_buffers()}
        registered = {id(x) for x in (*module.parameters(), *module.buffers())}
        self._others = [
            (x, x.detach().clone()) for x in held_tensors(module) if id(x) not in registered
        ]

    def changed(self) -> list[Tensor]:
        """Buffers, and tensors in plain attributes, that hold other floating point numbers than
        then: what a budget counts besides parameters. Counters and masks (integers, booleans) are
        no weights.
        """
        moved = [
            (b, self._buffers[name])
            for name, b in self._module.named_buffers()
            if name in self._buffers
        ]
        return [
            x
            for x, held in [*moved, *self._others]
            if x.is_floating_point() and not torch.equal(x.detach(), held)
        ]


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers that a mechanism learns."""

    registered: int
    """Of `nn.Module.parameters`, after the first training call"""
    hidden: int
    """Learned by gradient, and in no registry"""
    buffers: int
    """Floating point numbers that training calls change without a gradient"""

    @property
    def total(self) -> int:
        """All of them."""
        return self.registered + self.hidden + self.buffers

    def __str__(self) -> str:
        """``12 parameters``, with what else there is."""
        extra = [
            f"{n} {what}"
            for n, what in ((self.hidden, "hidden"), (self.buffers, "in buffers that learn"))
            if n
        ]
        return ", ".join([f"{self.registered} parameters", *extra])


def count_parameters(case: Case) -> ParameterCounts:
    """Of a fresh module of a case, after a training call."""
    module, out, snapshot, _ = _trained(case)
    hidden = sum(p.numel() for p in unregistered(module, out))
    registered = sum(p.numel() for p in module.parameters())
    return ParameterCounts(registered, hidden, sum(x.numel() for x in snapshot.changed()))


def _trained(case: Case) -> tuple[Attention, Tensor, Snapshot, set[int]]:
    training = case.with_(training=True, grad="grad")
    module = training.module()
    snapshot = Snapshot(module)
    before = {id(p) for p in module.parameters()}
    inputs = training.inputs()
    out = training.call(inputs, module)
    extra = module.auxiliary_loss()
    result = out.double().square().sum()
    if extra is not None:
        result = result + extra
    training.call(training.at_seed(case.seed + 3).inputs(), module)
    return module, result, snapshot, before


def check_parameters(case: Case) -> None:
    """All that learns is a registered parameter, or a buffer, from the start: no list, closure or
    plain attribute holds more, and none is made in a call.
    """
    module, out, _, before = _trained(case)
    names = dict(module.named_parameters())
    late = [name for name, p in names.items() if id(p) not in before]
    if late:
        raise case.fail(
            f"parameters {', '.join(late)} are made in a call, after the optimiser and the budget"
        )
    hidden = unregistered(module, out)
    if hidden:
        count = sum(p.numel() for p in hidden)
        raise case.fail(f"{count} numbers learn that are not registered as parameters")
    _groups(case, module)
    _checkpoint(case)


def _groups(case: Case, module: Attention) -> None:
    seen: set[int] = set()
    for group in module.parameter_groups():
        for key in ("lr", "betas", "eps"):
            if key in group:
                raise case.fail(f"a parameter group sets {key!r}, which is the recipe's")
        for p in group["params"]:
            if id(p) in seen:
                raise case.fail("a parameter is in two groups")
            seen.add(id(p))


def _checkpoint(case: Case) -> None:
    """A trained module's state_dict, loaded into a fresh one, evaluates alike: what is learned is
    in it, and nothing else acts.
    """
    training = case.with_(training=True, grad="grad")
    module = training.module()
    for step in range(3):
        out = training.call(training.at_seed(case.seed + step).inputs(), module)
        if out.requires_grad:
            loss = out.double().square().mean()
            if (extra := module.auxiliary_loss()) is not None:
                loss = loss + extra
            parameters = [p for p in module.parameters() if p.requires_grad]
            gradients = (
                torch.autograd.grad(loss, parameters, allow_unused=True) if parameters else ()
            )
            with torch.no_grad():
                for p, g in zip(parameters, gradients, strict=True):
                    if g is not None:
                        p.sub_(0.1 * g)
    fresh = case.with_(training=False).module()
    fresh.load_state_dict(module.state_dict())
    inputs = case.inputs()
    with torch.no_grad():
        want, got = inputs.run(module.eval()), inputs.run(fresh)
    difference = (want - got).abs().max().item()
    if not difference <= 1e-9 * max(1.0, want.abs().max().item()):
        raise case.fail(
            "after training, a fresh module with the same state_dict gives other outputs",
            difference,
        )
