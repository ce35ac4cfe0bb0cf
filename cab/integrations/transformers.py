"""Causal self attentions of the registry in Hugging Face models, through their attention interface.

    from cab.integrations import transformers as cab_transformers

    cab_transformers.register()
    model = AutoModelForCausalLM.from_config(config, attn_implementation="cab:gated-softmax")
    cab_transformers.attach(model)  # before the optimiser: entries may have parameters

Grouped queries, padding masks and the cache are mapped: after a prompt, entries that implement
`cab.Attention.step` decode through it, and the others attend with the last query. What has no
meaning for most mechanisms is refused (windows, packed sequences, static caches, dropout of
weights).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.masking_utils import causal_mask_function

from cab.attention_contract import Attention, AttentionSpec
from cab.candidate import Candidate, choose_candidate
from cab.controls import NO_ATTENTION
from cab.errors import UsageError
from cab.integrations.decoding import attend_cached, context_of, past_of
from cab.patterns import Pattern
from cab.registries import ATTENTIONS

PREFIX = "cab:"
_SLOT = "cab_attention"
"""Name of the module, and of its parameters in a state dict, below a layer's attention"""
_SIZES = ("head_dim", "layer_idx", "is_causal")

_CANDIDATES: dict[str, Candidate] = {}
"""By the name that ``attn_implementation`` has for them"""


def register(attention: str = "", *, name: str = "", preset: str = "", **options: Any) -> list[str]:
    """Make attentions known to transformers.

    Args:
        attention: an id, ``file.py:Class``, ``module:Class``, or a hybrid's formula; default: every
            entry that claims causal self attention, with its defaults.
        name: what stands after ``cab:``; default: its id.
        preset: of the entry.
        options: of the entry.

    Returns:
        The names that ``attn_implementation`` takes.

    Raises:
        UnknownEntryError, RegistrationError, OptionError.
        UnsupportedPatternError: the entry does not claim causal self attention.
        UsageError: a name, preset or options without an attention.
    """
    if attention:
        chosen = {name or attention: choose_candidate(attention, options, preset)}
    elif name or preset or options:
        raise UsageError("say which attention: register('local', window=64, name='local-64')")
    else:
        every = (i for i in ATTENTIONS.infos() if i.grade(Pattern.CAUSAL_SELF) is not None)
        chosen = {i.id: choose_candidate(i.id) for i in every if i.id != NO_ATTENTION}
    for word, candidate in chosen.items():
        candidate.require(Pattern.CAUSAL_SELF)
        _CANDIDATES[PREFIX + word] = candidate
        AttentionInterface.register(PREFIX + word, _attend)
        AttentionMaskInterface.register(PREFIX + word, _padding)
    return [PREFIX + word for word in chosen]


def attach(model: PreTrainedModel) -> PreTrainedModel:
    """Build the attentions of a model whose ``attn_implementation`` is one of ours, so that their
    parameters are the model's: trained, moved and saved with it. To load saved ones, attach before
    ``load_state_dict``. Layers that have theirs keep it; after `set_attn_implementation` they get
    another.

    Raises:
        UsageError: no layer of the model uses an attention of ours.
    """
    layers = [m for m in model.modules() if _implementation(m) and _is_causal_layer(m)]
    if not layers:
        raise UsageError(
            "no causal layer of the model uses an attention of cab: call register(), and give the "
            "model attn_implementation='cab:NAME'"
        )
    for layer in layers:
        _attention_of(layer)
    return model


def _implementation(layer: nn.Module) -> str:
    """The name of ours that a layer's configuration asks for; empty: none."""
    name = getattr(getattr(layer, "config", None), "_attn_implementation", None)
    return name if isinstance(name, str) and name in _CANDIDATES else ""


def _is_causal_layer(layer: nn.Module) -> bool:
    return all(hasattr(layer, size) for size in _SIZES) and bool(layer.is_causal)


def _attention_of(layer: nn.Module) -> Attention:
    """The module that attends for a layer, built on first use."""
    name = _implementation(layer)
    held = getattr(layer, _SLOT, None)
    if isinstance(held, _Slot):
        if held.name == name:
            return held.attention
        held.handle.remove()
    sizes: Any = layer
    config: Any = layer.config
    spec = AttentionSpec(
        Pattern.CAUSAL_SELF,
        config.num_attention_heads,
        sizes.head_dim,
        layer_index=sizes.layer_idx,
        layers=config.num_hidden_layers,
        max_length=config.max_position_embeddings,
        embed_dim=config.hidden_size,
    )
    like = next(layer.parameters())
    built = _CANDIDATES[name].build(spec).to(device=like.device, dtype=like.dtype)
    slot = _Slot(name, built.train(layer.training), _reads_inputs(_CANDIDATES[name], spec))
    layer.add_module(_SLOT, slot)
    slot.handle = layer.register_forward_pre_hook(slot.take_note, with_kwargs=True)
    return built


def _reads_inputs(candidate: Candidate, spec: AttentionSpec) -> bool:
    """Whether an attention refuses a call without layer inputs."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        module = candidate.build(spec).eval()
        q, k, v = torch.zeros(3, 1, spec.heads, 2, spec.head_dim)
        try:
            module(q, k, v)
        except ValueError:
            return True
    return False


@dataclass
class _Call:
    """What a layer was called with that the interface is not told."""

    hidden: Tensor | None = None
    """(B, L, E)"""
    cache: Cache | None = None


class _Slot(nn.Module):
    """A layer's attention, and what its layer is being called with."""

    def __init__(self, name: str, attention: Attention, reads_inputs: bool) -> None:
        super().__init__()
        self.name = name
        self.attention = attention
        self.reads_inputs = reads_inputs
        self.call = _Call()
        self.handle: RemovableHandle

    def take_note(self, layer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Before a call of the layer."""
        given = [*args, *kwargs.values()]
        hidden = kwargs.get("hidden_states", args[0] if args else None)
        caches = [x for x in given if isinstance(x, Cache)]
        self.call = _Call(hidden, caches[0] if caches else None)

    def noted(self) -> _Call:
        """What was noted, once, so that nothing is held until the next call."""
        call, self.call = self.call, _Call()
        return call


def _padding(
    batch_size: int,
    q_length: int,
    kv_length: int,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: Tensor | None = None,
    **more: Any,
) -> Tensor | None:
    """The mask that layers are given: (B, Lk) bool, True where a key is valid, or None.

    Raises:
        NotImplementedError: a mask that is more than causal with padding.
    """
    if mask_function is not causal_mask_function:
        raise NotImplementedError(
            "cab attends causally with padding: windows, packed sequences and other masks of the "
            "model's own are not supported"
        )
    if attention_mask is None:
        return None
    if attention_mask.shape[-1] != kv_length:
        raise NotImplementedError(
            f"a mask of {attention_mask.shape[-1]} tokens for a cache of {kv_length}: static "
            "caches are not supported, leave cache_implementation out"
        )
    valid = attention_mask.bool()
    return None if bool(valid.all()) else valid


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[Tensor, None]:
    """The function behind ``cab:NAME``: (B, L, H, D) and no weights.

    Args:
        module: the layer.
        query: (B, H, Lq, D).
        key: (B, Hkv, Lk, D), the cached ones included.
        value: likewise.
        attention_mask: from `_padding`.
        scaling: of scores; folded into the queries where it is not D^-1/2.
        dropout: of weights; must be 0.
        more: what else models give, checked by `_refuse`.
    """
    _refuse(module, attention_mask, dropout, more)
    attention = _attention_of(module)
    spec = attention.spec
    groups = spec.heads // key.shape[1]
    if groups > 1:
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    if scaling is not None:
        factor = scaling * spec.head_dim**0.5
        query = query if abs(factor - 1) < 1e-12 else query * factor
    slot: _Slot = getattr(module, _SLOT)
    call = slot.noted()
    if call.cache is None or torch.is_grad_enabled():
        lengths = query.shape[-2], key.shape[-2]
        out = attention(query, key, value, context_of(attention_mask, call.hidden, *lengths))
    else:
        past = past_of(call.cache, spec.layer_index)
        past.append(call.hidden if slot.reads_inputs else None, key.shape[-2])
        out = attend_cached(attention, query, key, value, attention_mask, call.hidden, past)
    return out.transpose(1, 2).contiguous(), None


_UNKNOWN = ("softcap", "s_aux", "sliding_window", "cu_seq_lens_q", "head_mask", "position_bias")
"""What some models ask of softmax"""


def _refuse(
    module: nn.Module, mask: Tensor | None, dropout: float, more: Mapping[str, Any]
) -> None:
    if dropout:
        raise NotImplementedError(
            "dropout of attention weights, which few mechanisms have: set the model's attention "
            "dropout (attention_dropout, attn_pdrop) to 0 to train it"
        )
    if not _is_causal_layer(module) or more.get("is_causal") is False:
        raise NotImplementedError("cab's attentions stand in causal self attention layers only")
    if mask is not None and mask.ndim != 2:
        raise NotImplementedError("a mask of one's own with four dimensions; give (batch, tokens)")
    for name in _UNKNOWN:
        if more.get(name) is not None:
            raise NotImplementedError(f"the model asks for {name}, which cab's attentions have not")
