"""One attention module for a model of the user's own: built, checked at its calls, and described.

In a backbone of the suite a slot feeds what it should. Elsewhere the first mistake is a layout, so
a module that is built here looks at the shapes of every call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from cab.attention_contract import (
    Attention,
    AttentionSpec,
    build_attention,
    infer_attention_info,
)
from cab.candidate import choose_candidate
from cab.errors import UsageError
from cab.info import OptionValue
from cab.options import preset_options, require_within_reason, resolve_options
from cab.patterns import Pattern

Named = str | type[Attention] | Callable[..., Tensor]
"""A name as the command line takes it, a class, or a function of q, k and v"""

SPEC_FIELDS = ("max_length", "embed_dim", "value_dim", "layer_index", "layers")
"""Keyword arguments that say where the module stands; all others are the entry's options"""


def build_standalone(
    attention: Named,
    pattern: str | Pattern,
    heads: int,
    head_dim: int,
    preset: str = "",
    options: Mapping[str, Any] | None = None,
) -> Attention:
    """See `cab.attention`."""
    given = dict(options or {})
    place = {name: given.pop(name) for name in SPEC_FIELDS if name in given}
    for name, value in {"heads": heads, "head_dim": head_dim, **place}.items():
        _require_size(name, value, least=0 if name in ("layer_index", "value_dim") else 1)
    spec = AttentionSpec(Pattern.parse(pattern), heads, head_dim, **place)
    if isinstance(attention, str):
        candidate = choose_candidate(attention, given, preset)
        module, name, chosen = candidate.build(spec), candidate.id, candidate.options
    else:
        cls = _class_of(attention)
        named = preset_options(cls.info, preset) if preset else {}
        chosen = resolve_options(cls.info, named | given)
        require_within_reason(cls.info, chosen)
        module, name = build_attention(cls, spec, chosen), cls.info.id
    # Of this instance alone: what the class was built with elsewhere is not known to it.
    module.__dict__["extra_repr"] = partial(_description, name, spec, chosen)
    checked = partial(_require_layout, value_dim=place.get("value_dim", 0))
    module.register_forward_pre_hook(checked, with_kwargs=True)
    return module


def _class_of(what: type[Attention] | Callable[..., Tensor]) -> type[Attention]:
    """The class itself, with a record where it has none of its own; of a function, what calls it.

    Raises:
        UsageError: it is neither.
    """
    if isinstance(what, type) and issubclass(what, Attention):
        if vars(what).get("info") is None:
            what.info = infer_attention_info(what)
        return what
    if isinstance(what, type) or not callable(what):
        raise UsageError(
            f"{what!r} is no attention: give an id ('lla'), 'file.py:Class', a subclass of "
            "cab.Attention, or a function of q, k and v"
        )
    from cab.function_attention import attention_of_function

    cls: type[Attention] = attention_of_function(what, getattr(what, "__name__", "function"))
    if vars(cls).get("info") is None:
        cls.info = infer_attention_info(cls)
    return cls


def _require_size(name: str, value: object, least: int) -> None:
    if value is None and name == "embed_dim":
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{name} must be a whole number of at least {least}, not {value!r}")


def _description(name: str, spec: AttentionSpec, options: Mapping[str, OptionValue]) -> str:
    words = [name, spec.pattern.value, f"heads={spec.heads}", f"head_dim={spec.head_dim}"]
    if spec.value_dim != spec.head_dim:
        words.append(f"value_dim={spec.value_dim}")
    return ", ".join([*words, *(f"{key}={value!r}" for key, value in options.items())])


def _require_layout(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, value_dim: int
) -> None:
    """Before a call: (B, H, L, D) with the heads and widths that the module was built for; values
    may have any width where none was asked for.

    Raises:
        ValueError: says which tensor has which shape, and what to do.
    """
    assert isinstance(module, Attention)
    spec = module.spec
    tensors = dict(zip("qkv", args, strict=False)) | {n: kwargs[n] for n in "qkv" if n in kwargs}
    if len(tensors) < 3:
        return  # the call says itself what is missing
    widths = {"q": spec.head_dim, "k": spec.head_dim, "v": value_dim}
    for name, x in tensors.items():
        _require_tensor(name, x, spec, widths[name])
    q, k, v = (tensors[name] for name in "qkv")
    if not q.shape[0] == k.shape[0] == v.shape[0]:
        raise ValueError(f"q, k and v have batches of {len(q)}, {len(k)} and {len(v)}")
    if k.shape[-2] != v.shape[-2]:
        raise ValueError(f"there are {k.shape[-2]} keys and {v.shape[-2]} values")
    _require_lengths(spec, q.shape[-2], k.shape[-2])


def _require_tensor(name: str, x: object, spec: AttentionSpec, width: int) -> None:
    want = f"(batch, {spec.heads} heads, length, {width or 'width'})"
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} is {type(x).__name__}, not a tensor {want}")
    shape = tuple(x.shape)
    if x.ndim != 4:
        raise ValueError(f"{name} has shape {shape}; it must be {want}")
    if shape[1] != spec.heads:
        advice = ""
        if shape[2] == spec.heads:
            advice = f": heads come before tokens here, write {name}.transpose(1, 2)"
        elif name != "q" and spec.heads % shape[1] == 0:
            advice = (
                f": for grouped queries write {name}.repeat_interleave("
                f"{spec.heads // shape[1]}, dim=1)"
            )
        raise ValueError(f"{name} has shape {shape}; it must be {want}{advice}")
    if width and shape[3] != width:
        raise ValueError(f"{name} has shape {shape}; it must be {want}")


def _require_lengths(spec: AttentionSpec, length_q: int, length_k: int) -> None:
    if max(length_q, length_k) > spec.max_length:
        raise ValueError(
            f"{max(length_q, length_k)} tokens, and the module was built for at most "
            f"{spec.max_length}: build it with a larger max_length"
        )
    if spec.pattern.cross or length_q == length_k:
        return
    if not spec.pattern.causal:
        raise ValueError(
            f"{length_q} queries and {length_k} keys in self attention; build it with "
            "pattern='noncausal-cross' to attend to another sequence"
        )
    if length_q > length_k:
        raise ValueError(f"{length_q} queries and {length_k} keys in causal self attention")
