"""The attention contract: what every mechanism takes, returns and promises."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from cab.attention_context import AttentionContext
from cab.info import AttentionInfo, Grade, Option, OptionValue
from cab.masked_tokens import masked_tokens_are_zeros
from cab.options import require_pattern, resolve_options
from cab.patterns import Pattern
from cab.source_info import class_id
from cab.vmapped import mapped_dimensions_are_rows


@dataclass(frozen=True)
class AttentionSpec:
    """Where an attention module stands in a model; all it may know when it is built."""

    pattern: Pattern
    heads: int
    head_dim: int
    layer_index: int = 0
    layers: int = 1
    max_length: int = 4096
    """Longest sequence that the model will feed (upper bound; outputs must not depend on it)."""
    embed_dim: int | None = None
    """Width of the layer inputs in `AttentionContext`; None: heads * head_dim."""
    value_dim: int = 0
    """Width Dv of a head's values; 0: head_dim."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "value_dim", self.value_dim or self.head_dim)


@dataclass(frozen=True)
class AttentionShape:
    """Sizes of one call, for cost formulas."""

    batch: int
    heads: int
    length_q: int
    length_k: int
    head_dim: int
    value_dim: int


@dataclass
class DecodeState:
    """What a mechanism keeps between `Attention.step` calls.

    Mechanisms subclass this or put their tensors in ``tensors``; ``length`` counts the keys seen.
    """

    length: int = 0
    tensors: dict[str, Tensor] = field(default_factory=dict)


_TAKE_TOKENS = {
    "forward": ("q", "k", "v", "context"),
    "reference": ("q", "k", "v", "context"),
    "prefill": ("k", "v", "context"),
}
"""Methods that are given a mask with tokens, and their arguments."""


class Attention(nn.Module):
    """Base of every mechanism: maps q, k, v to the attended values.

    A subclass implements `forward` and declares its options as keyword arguments of ``__init__``,
    each with a default, and repeats them in its `AttentionInfo`. The contract that the tests hold
    every entry to, on every pattern it claims:

    * right shape and dtype, finite outputs and gradients, in every dtype those of float64;
    * a masked key has no effect, and a row that sees no key returns zeros;
    * batch rows do not influence each other in eval mode; eval mode is deterministic;
    * nothing is carried from call to call, inputs are not written to, torch is not reseeded;
    * no causal leak, by perturbation, by gradient and by truncation, in train mode too;
    * `step` equals the parallel form, where there is one, after any prompt;
    * `forward` equals `reference` in float64, and gradients are the output's derivative;
    * all that learns is a registered parameter, or a buffer, from construction on;
    * outputs do not depend on ``max_length``.

    They hold at any length up to ``max_length``, any sizes, layer, dtype, scale and context:
    `cab.checks` looks at fixed conditions and at some drawn at random.
    """

    info: ClassVar[AttentionInfo]

    calibrates: ClassVar[bool] = False
    """Whether the heads that `switches` turns on are to be chosen on validation data"""

    surrogate_gradient: ClassVar[bool] = False
    """Whether gradients are by design not the derivative of the output (straight-through
    estimators); `reference` then defines them"""

    def __init__(self, spec: AttentionSpec) -> None:
        super().__init__()
        self.spec = spec

    def __init_subclass__(cls, **options: Any) -> None:
        """Every subclass, its own or inherited methods alike, gets zeros for masked tokens."""
        super().__init_subclass__(**options)
        for name, arguments in _TAKE_TOKENS.items():
            method, given = getattr(cls, name), getattr(Attention, name)
            zeroing = masked_tokens_are_zeros(method, *arguments)
            if zeroing is not method and method is not given:
                setattr(cls, name, zeroing)
        mapped = mapped_dimensions_are_rows(cls.forward)
        if mapped is not cls.forward and cls.forward is not Attention.forward:
            cls.forward = mapped  # type: ignore[method-assign]  # replacing it is what this is for

    @property
    def pattern(self) -> Pattern:
        """The pattern of the slot this module was built for."""
        return self.spec.pattern

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Attend.

        Args:
            q: (B, H, Lq, D) queries.
            k: (B, H, Lk, D) keys. In self attention Lq may be smaller than Lk (decoding): query i
                then stands at key position i + Lk - Lq; a mechanism that pools over queries may
                raise NotImplementedError there.
            v: (B, H, Lk, Dv) values.
            context: masks, layer inputs, positions.

        Returns:
            (B, H, Lq, Dv), in the dtype of ``v``.
        """
        raise NotImplementedError

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """The plain form, readable as the definition; runs in float64. Same shapes as `forward`."""
        raise NotImplementedError

    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """State after the keys and values of the prompt (self) or of the whole source (cross)."""
        raise NotImplementedError

    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """Attend with the next query only.

        Args:
            q_t: (B, H, 1, D).
            k_t: (B, H, 1, D) the token's own key in causal self attention; None in cross attention,
                where the source is fixed.
            v_t: (B, H, 1, Dv), likewise.
            state: from `prefill` or the step before; may be changed in place.
            context: the token's own ``query_input`` (B, 1, E) and ``query_positions`` (1,), in self
                attention ``key_input`` and ``key_positions`` too. A mechanism that reads none of
                them may leave the parameter out of its signature.

        Returns:
            (B, H, 1, Dv) and the state after this token.
        """
        raise NotImplementedError

    @classmethod
    def decodes(cls) -> bool:
        """Whether the mechanism implements `step`."""
        return cls.step is not Attention.step

    @classmethod
    def step_takes_context(cls) -> bool:
        """Whether `step` has the parameter ``context``."""
        return "context" in inspect.signature(cls.step).parameters

    def state_size(self, length: int) -> int:
        """Numbers kept per sequence, all heads together, after ``length`` keys (decoding)."""
        raise NotImplementedError

    def flops(self, shape: AttentionShape) -> float:
        """Floating point operations of one forward pass; a multiply-add counts as two."""
        raise NotImplementedError

    def auxiliary_loss(self) -> Tensor | None:
        """A term for the training loss from the last forward pass (routing commitment), or None.

        A finite scalar with a gradient; it enters no reported loss.
        """
        return None

    def switches(self) -> Tensor | None:
        """(H,) bool buffer, to be written to: the heads in which a training-free modification acts
        in eval mode; None where there is none.

        A model is trained and its checkpoint chosen with all of them off. Before it is tested they
        are turned on: all, or with ``calibrates`` those that improve the validation score when they
        are turned on alone.
        """
        return None

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Optimiser groups for parameters with special treatment (``{"params": [...],
        "weight_decay": 0.0}``); parameters in no group get the recipe's settings. The learning rate
        is the recipe's at every step, and never above a group's ``"max_lr"``.
        """
        return []


def infer_attention_info(cls: type) -> AttentionInfo:
    """Record for an undecorated class: its own definition is the published form, on all patterns.

    The contract checks decide, before anything is trained, whether it keeps that promise. Options
    are the keyword arguments of its constructor.
    """
    summary = (cls.__doc__ or "").strip().splitlines()
    return AttentionInfo(
        id=class_id(cls.__name__),
        title=summary[0] if summary else cls.__name__,
        formula="not stated",
        patterns=dict.fromkeys(Pattern, Grade.FAITHFUL),
        time="not stated",
        memory="not stated",
        options=tuple(
            Option(parameter.name, parameter.default, "not stated")
            for parameter in list(inspect.signature(cls).parameters.values())[1:]
            if isinstance(parameter.default, bool | int | float | str)
        ),
    )


def is_undecorated(cls: type[Attention]) -> bool:
    """Whether a class's record is the one that was inferred for it: it claims every pattern, and
    which of them it can hold is for the checks to find out.
    """
    return cls.info == infer_attention_info(cls)


def build_attention(
    cls: type[Attention], spec: AttentionSpec, options: Mapping[str, OptionValue] | None = None
) -> Attention:
    """An instance of a registered class for a slot.

    Raises:
        UnsupportedPatternError: the entry does not claim the pattern; says which it claims, and why
            this one is absent where the record knows.
        OptionError: see `resolve_options`.
    """
    info = cls.info
    require_pattern(info, spec.pattern)
    return cls(spec, **resolve_options(info, options or {}))
