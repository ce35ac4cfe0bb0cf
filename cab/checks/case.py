"""What a check runs on: a mechanism, a pattern and a condition."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from cab.attention_contract import Attention, AttentionSpec, build_attention
from cab.checks.conditions import Condition, drawn, of_pattern
from cab.checks.inputs import Inputs, draw_inputs
from cab.errors import ContractError
from cab.info import OptionValue
from cab.patterns import Pattern


@dataclass(frozen=True)
class Case:
    """A class, its pattern and options, a seed, and the condition that it is called under.

    Attributes:
        draws: conditions that each check draws at random.
        share: of the fixed conditions of each check: every n-th from place i on, (i, n).
        number: the condition's place among those of its check, fixed ones first.
    """

    cls: type[Attention]
    pattern: Pattern
    options: Mapping[str, OptionValue]
    seed: int = 0
    condition: Condition = field(default_factory=Condition)
    draws: int = 4
    share: tuple[int, int] = (0, 1)
    number: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "condition", of_pattern(self.condition, self.pattern))

    def at(self, condition: Condition) -> Case:
        """The same mechanism under another condition."""
        return replace(self, condition=condition, seed=condition.seed)

    def small(self) -> Case:
        """Under the small case."""
        return replace(self, condition=Condition(seed=self.seed))

    def with_(self, **changes: Any) -> Case:
        """The same condition but for some fields."""
        return replace(self, condition=replace(self.condition, **changes))

    def masked(self, kind: str) -> Case:
        """With a mask, and so with a context."""
        given = "bare" if self.condition.given == "none" else self.condition.given
        return self.with_(mask=kind, given=given)

    def at_seed(self, seed: int) -> Case:
        """Other numbers under the same condition; not other parameters of a module."""
        return replace(self, seed=seed)

    def through(
        self, fixed: Iterable[Condition], check: str, longest: int = 1300
    ) -> Iterator[Case]:
        """The fixed conditions and then the drawn ones, others for each check, that are supported.

        Where the mechanism needs layer inputs it gets them.

        Raises:
            ContractError: the mechanism does not support half of them.
        """
        rng = random.Random(f"{check} {self.seed}")
        first, step = self.share
        every = [(i, c.seeded(self.seed + 100 + i)) for i, c in enumerate(fixed)]
        count, every = len(every), every[first::step]
        every += [(count + i, drawn(self.pattern, rng, longest)) for i in range(self.draws)]
        refused = 0
        for number, condition in every:
            if condition.given in ("none", "bare") and self.needs_inputs():
                condition = replace(condition, given="inputs")
            at = replace(self.at(condition), number=number)
            try:
                at.module()
            except NotImplementedError:  # sizes that it says it does not serve
                refused += 1
                continue
            yield at
        if 2 * refused > len(every):
            raise ContractError(f"serves {len(every) - refused} of {len(every)} conditions")

    def needs_inputs(self) -> bool:
        """Whether the mechanism refuses a call without layer inputs."""
        small = self.small().with_(given="bare")
        try:
            small.call(small.inputs())
        except ValueError:
            return True
        return False

    def build(self, **changes: object) -> Attention:
        """A fresh module, as `module`, with other fields in the condition."""
        return self.with_(**changes).module()

    def module(self, dtype: torch.dtype | None = None) -> Attention:
        """A fresh module in the condition's mode; the same parameters every time."""
        c = self.condition
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            spec = AttentionSpec(
                self.pattern,
                c.heads,
                c.head_dim,
                layer_index=c.layer_index,
                layers=c.layers,
                max_length=max(c.max_length, c.length_q, c.length_k) + c.first_position,
                embed_dim=c.width,
                value_dim=c.value_dim,
            )
            module = build_attention(self.cls, spec, self.options)
        return module.to(dtype or c.parameter_dtype).train(c.training)

    def inputs(self, dtype: torch.dtype | None = None) -> Inputs:
        """Random inputs; the same every time."""
        condition = replace(self.condition, seed=self.seed)
        if dtype is not None:
            condition = replace(condition, dtype=dtype)
        return draw_inputs(condition, self.pattern.cross)

    def generator(self, stream: int) -> torch.Generator:
        """For what a check draws besides."""
        return torch.Generator().manual_seed(self.seed + 1000 * stream)

    @contextlib.contextmanager
    def mode(self) -> Iterator[None]:
        """Random state, autograd and autocast of the condition."""
        c = self.condition
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices=[]))
            torch.default_generator.manual_seed(self.seed + 7)
            if c.grad == "no_grad":
                stack.enter_context(torch.no_grad())
            elif c.grad == "inference":
                stack.enter_context(torch.inference_mode())
            stack.enter_context(self.autocast())
            yield

    def autocast(self) -> torch.autocast:
        """Mixed precision, where the condition has it."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.condition.autocast)

    def call(self, inputs: Inputs, module: Attention | None = None) -> Tensor:
        """Output under the condition: random state, autograd and autocast alike every time.

        Without a module a fresh one is built, so that nothing is carried over between calls.
        """
        module = self.module() if module is None else module
        with self.mode():
            return inputs.run(module)

    def fail(self, complaint: str, size: float | None = None) -> ContractError:
        """An error that says under which condition."""
        how = "" if size is None else f" by {size:.1e}"
        return ContractError(f"{complaint}{how} ({self.condition})")
