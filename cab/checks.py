"""The attention contract as checks: run by the tests on every entry, by `cab check`, and before a
candidate from outside is trained.

Each check takes an attention class, a pattern and options, and raises `ContractError` with the
measured size of the violation. They use small random inputs, so that all of them together take
well under a second.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cab.attention_contract import Attention, AttentionContext, AttentionSpec, build_attention
from cab.errors import ContractError, OptionError
from cab.info import OptionValue
from cab.patterns import Pattern
from cab.request import resolve_options

_BATCH, _HEADS, _DIM, _VALUE_DIM = 3, 2, 8, 6
_LENGTH_Q, _LENGTH_K = 21, 34
"""Not multiples of any block size, and Lq != Lk in cross attention."""

_EXACT = 1e-9
"""Bar for float64 comparisons of two evaluations of one function."""


@dataclass(frozen=True)
class Case:
    """What a check runs on: a class, its pattern and options, and a seed."""

    cls: type[Attention]
    pattern: Pattern
    options: Mapping[str, OptionValue]
    seed: int = 0

    def module(self, dtype: torch.dtype = torch.float64) -> Attention:
        """A fresh module in eval mode; the same parameters every time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            spec = AttentionSpec(
                self.pattern,
                _HEADS,
                _DIM,
                max_length=64,
                embed_dim=_HEADS * _DIM,
                value_dim=_VALUE_DIM,
            )
            return build_attention(self.cls, spec, self.options).to(dtype).eval()

    def inputs(self, dtype: torch.dtype = torch.float64) -> Inputs:
        """Random q, k, v and layer inputs of this pattern's lengths."""
        generator = torch.Generator().manual_seed(self.seed + 1)
        length_k = _LENGTH_K
        length_q = _LENGTH_Q if self.pattern.cross else length_k

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        key_input = draw(_BATCH, length_k, _HEADS * _DIM)
        return Inputs(
            draw(_BATCH, _HEADS, length_q, _DIM),
            draw(_BATCH, _HEADS, length_k, _DIM),
            draw(_BATCH, _HEADS, length_k, _VALUE_DIM),
            draw(_BATCH, length_q, _HEADS * _DIM) if self.pattern.cross else key_input,
            key_input,
        )


@dataclass(frozen=True)
class Inputs:
    """Tensors of one call."""

    q: Tensor
    k: Tensor
    v: Tensor
    query_input: Tensor
    key_input: Tensor
    key_mask: Tensor | None = None

    def run(self, module: Attention) -> Tensor:
        """The module's output."""
        return module(self.q, self.k, self.v, self.context())

    def context(self) -> AttentionContext:
        """Masks and layer inputs; a self slot's key mask is its query mask too."""
        own = self.key_mask if self.query_input is self.key_input else None
        return AttentionContext(
            query_mask=own,
            key_mask=self.key_mask,
            query_input=self.query_input,
            key_input=self.key_input,
        )

    def token(self, t: int) -> AttentionContext:
        """Layer input and position of query t alone; in self attention they are the key's too."""
        own, place = self.query_input[:, t : t + 1], torch.tensor([t])
        if self.query_input is not self.key_input:
            return AttentionContext(query_input=own, query_positions=place)
        return AttentionContext(
            query_input=own, key_input=own, query_positions=place, key_positions=place
        )

    def rows(self, index: slice) -> Inputs:
        """Some rows of the batch."""
        mask = None if self.key_mask is None else self.key_mask[index]
        query_input, key_input = self.query_input[index], self.key_input[index]
        if self.query_input is self.key_input:
            query_input = key_input
        return Inputs(self.q[index], self.k[index], self.v[index], query_input, key_input, mask)

    def truncated(self, length: int, cross: bool) -> Inputs:
        """The first ``length`` queries; in self attention the same keys."""
        query_input = self.query_input[:, :length]
        if cross:
            return replace(self, q=self.q[:, :, :length], query_input=query_input)
        return Inputs(
            self.q[:, :, :length],
            self.k[:, :, :length],
            self.v[:, :, :length],
            query_input,
            query_input,
            None if self.key_mask is None else self.key_mask[:, :length],
        )


def check_shape_and_dtype(case: Case) -> None:
    """The output is (B, H, Lq, Dv) in the dtype of v, finite, with finite gradients."""
    for dtype in (torch.float32, torch.bfloat16):
        inputs = case.inputs(dtype)
        leaves = [x.requires_grad_() for x in (inputs.q, inputs.k, inputs.v)]
        module = case.module(torch.float32)
        out = inputs.run(module)
        want = (*inputs.q.shape[:3], inputs.v.shape[-1])
        if tuple(out.shape) != want:
            raise ContractError(f"output has shape {tuple(out.shape)}, not {want}")
        if out.dtype != dtype:
            raise ContractError(f"output is {out.dtype} for values in {dtype}")
        if not out.isfinite().all():
            raise ContractError(f"output is not finite in {dtype}")
        if not out.requires_grad:
            continue
        parameters = [p for p in module.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(
            out.float().square().sum(), [*leaves, *parameters], allow_unused=True
        )
        if any(g is not None and not g.isfinite().all() for g in gradients):
            raise ContractError(f"a gradient is not finite in {dtype}")


def check_masked_keys(case: Case) -> None:
    """Masked keys have no effect: the output equals that with the keys removed, whatever is in
    them; a row that sees no key returns zeros.
    """
    inputs = case.inputs()
    length = inputs.k.shape[-2]
    keep = length - 9
    mask = torch.ones(_BATCH, length, dtype=torch.bool)
    mask[:, keep:] = False
    module = case.module()
    masked = replace(inputs, key_mask=mask).run(module)
    noisy = replace(
        inputs,
        k=inputs.k.masked_fill(~mask[:, None, :, None], 50.0),
        v=inputs.v.masked_fill(~mask[:, None, :, None], -50.0),
        key_mask=mask,
    )
    if not case.pattern.cross:
        _same(masked[:, :, :keep], noisy.run(module)[:, :, :keep], "content of masked keys matters")
        short = inputs.truncated(keep, cross=False).run(module)
        _same(masked[:, :, :keep], short, "masking keys differs from removing them")
    else:
        _same(masked, noisy.run(module), "content of masked keys matters")
        removed = replace(
            inputs,
            k=inputs.k[:, :, :keep],
            v=inputs.v[:, :, :keep],
            key_input=inputs.key_input[:, :keep],
        )
        _same(masked, removed.run(module), "masking keys differs from removing them")
    mask = torch.ones(_BATCH, length, dtype=torch.bool)
    mask[0] = False
    empty = replace(inputs, key_mask=mask).run(module)
    if not torch.equal(empty[0], torch.zeros_like(empty[0])):
        raise ContractError("a row that sees no key does not return zeros")


def check_batch_independence(case: Case) -> None:
    """A batch row gives the same output alone."""
    inputs, module = case.inputs(), case.module()
    together = inputs.run(module)
    for row in range(_BATCH):
        alone = inputs.rows(slice(row, row + 1)).run(module)
        _same(together[row : row + 1], alone, "batch rows influence each other")


def check_determinism(case: Case) -> None:
    """Eval mode gives the same output twice, to the last bit."""
    inputs, module = case.inputs(), case.module()
    if not torch.equal(inputs.run(module), inputs.run(module)):
        raise ContractError("two evaluations of the same input differ")


def check_no_leak(case: Case) -> None:
    """Causal patterns: output i ignores what comes after i - changed, removed, or by gradient."""
    if not case.pattern.causal:
        return
    inputs, module = case.inputs(), case.module()
    out = inputs.run(module)
    length = inputs.q.shape[-2]
    for cut in (1, length // 2, length - 1):
        _same(
            out[:, :, :cut],
            _perturbed(case, inputs, cut).run(module)[:, :, :cut],
            f"changing tokens from {cut} on changes earlier outputs",
        )
        short = inputs.truncated(cut, case.pattern.cross)
        _same(
            out[:, :, :cut],
            short.run(module),
            f"removing tokens from {cut} on changes earlier outputs",
        )
    _check_gradient_leak(case, inputs, module)


def _check_gradient_leak(case: Case, inputs: Inputs, module: Attention) -> None:
    cut = inputs.q.shape[-2] // 2
    if case.pattern.cross:
        leaves = {"queries": inputs.q.clone().requires_grad_()}
        leaked = replace(inputs, q=leaves["queries"])
    else:
        leaves = {
            "queries": inputs.q.clone().requires_grad_(),
            "keys": inputs.k.clone().requires_grad_(),
            "values": inputs.v.clone().requires_grad_(),
        }
        leaked = replace(inputs, q=leaves["queries"], k=leaves["keys"], v=leaves["values"])
    out = leaked.run(module)
    if not out.requires_grad:
        return
    gradients = torch.autograd.grad(
        out[:, :, :cut].square().sum(), list(leaves.values()), allow_unused=True
    )
    for name, gradient in zip(leaves, gradients, strict=True):
        if gradient is not None and gradient[:, :, cut:].abs().max() > 0:
            raise ContractError(f"outputs before {cut} have a gradient to later {name}")


def check_step(case: Case) -> None:
    """Decoding token by token equals the parallel form, after an empty and after a real prompt."""
    if not (case.cls.decodes() and case.pattern.causal):
        return
    inputs, module = case.inputs(), case.module()
    out = inputs.run(module)
    length = inputs.q.shape[-2]
    for prompt in (0, 5):
        if case.pattern.cross:
            state = module.prefill(inputs.k, inputs.v, inputs.context())
        else:
            state = module.prefill(inputs.k[:, :, :prompt], inputs.v[:, :, :prompt])
        for t in range(prompt, length):
            own = slice(t, t + 1)
            k_t = None if case.pattern.cross else inputs.k[:, :, own]
            v_t = None if case.pattern.cross else inputs.v[:, :, own]
            token = {"context": inputs.token(t)} if case.cls.step_takes_context() else {}
            row, state = module.step(inputs.q[:, :, own], k_t, v_t, state, **token)
            _same(out[:, :, own], row, f"step at token {t} differs from the parallel form")


def check_reference(case: Case) -> None:
    """`forward` equals `reference` in float64, with and without masked keys."""
    if case.cls.reference is Attention.reference:
        return
    inputs, module = case.inputs(), case.module()
    mask = torch.ones(_BATCH, inputs.k.shape[-2], dtype=torch.bool)
    mask[0, 3:9] = False
    mask[1, ::2] = False
    for masked in (inputs, replace(inputs, key_mask=mask)):
        want = module.reference(masked.q, masked.k, masked.v, masked.context())
        _same(want, masked.run(module), "forward differs from the reference")


def check_options(case: Case) -> None:
    """The options of the info record are the constructor's keyword arguments, same defaults, and
    its presets set only options that it has.
    """
    parameters = list(inspect.signature(case.cls.__init__).parameters.values())[2:]
    stated = case.cls.info.defaults()
    actual = {p.name: p.default for p in parameters}
    if stated != actual:
        raise ContractError(f"the info record states options {stated}, the constructor {actual}")
    for name, values in case.cls.info.presets.items():
        try:
            resolve_options(case.cls.info, values)
        except OptionError as error:
            raise ContractError(f"preset {name!r}: {error}") from None


CHECKS: dict[str, Callable[[Case], None]] = {
    "shape and dtype": check_shape_and_dtype,
    "masked keys": check_masked_keys,
    "batch independence": check_batch_independence,
    "determinism": check_determinism,
    "no leak": check_no_leak,
    "step": check_step,
    "reference": check_reference,
    "options": check_options,
}
"""Every rule of the contract by its short name."""


def run_checks(
    cls: type[Attention], pattern: Pattern, options: Mapping[str, OptionValue]
) -> dict[str, str]:
    """All checks on one pattern; gives the violations by the name of the rule (empty: none)."""
    violations = {}
    for name, check in CHECKS.items():
        try:
            check(Case(cls, pattern, options))
        except ContractError as error:
            violations[name] = str(error)
        except Exception as error:  # a candidate may raise anything; that is its violation
            violations[name] = f"{type(error).__name__}: {error}"
    return violations


def _perturbed(case: Case, inputs: Inputs, cut: int) -> Inputs:
    generator = torch.Generator().manual_seed(case.seed + 2)

    def tail(x: Tensor, dim: int) -> Tensor:
        changed = x.clone()
        target = changed.narrow(dim, cut, x.shape[dim] - cut)
        target.copy_(torch.randn(target.shape, generator=generator, dtype=x.dtype) * 3)
        return changed

    if case.pattern.cross:
        return replace(inputs, q=tail(inputs.q, 2), query_input=tail(inputs.query_input, 1))
    shared = tail(inputs.query_input, 1)
    return Inputs(tail(inputs.q, 2), tail(inputs.k, 2), tail(inputs.v, 2), shared, shared)


def _same(want: Tensor, got: Tensor, complaint: str) -> None:
    if want.shape != got.shape:
        raise ContractError(f"{complaint}: shapes {tuple(want.shape)} and {tuple(got.shape)}")
    if want.numel() == 0:
        return
    difference = (want - got).abs().max().item()
    if not difference <= _EXACT * max(1.0, want.abs().max().item()):
        raise ContractError(f"{complaint}: largest difference {difference:.1e} in float64")
