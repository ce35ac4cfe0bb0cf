"""The rules of the contract in the small case, exactly, in float64: all together take well under a
second. What holds here may fail elsewhere, see the modules beside this one.
"""

from __future__ import annotations

import inspect
from dataclasses import replace

import torch
from torch import Tensor

from cab.attention_context import AttentionContext
from cab.attention_contract import Attention, is_undecorated
from cab.checks.advice import UnusableError, empty_rows, require_callable
from cab.checks.case import Case
from cab.checks.compare import same
from cab.checks.inputs import Inputs
from cab.errors import ContractError, OptionError
from cab.options import resolve_options

NOT_IMPLEMENTED = "not implemented, skipped"
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def check_shape_and_dtype(case: Case) -> None:
    """The output is (B, H, Lq, Dv) in the dtype of v, finite, with finite gradients.

    Raises:
        UnusableError: there is no output, or one of another shape.
    """
    require_callable(case.cls)
    for dtype in (torch.float32, torch.bfloat16):
        inputs, leaves = case.inputs(dtype).leaves()
        module = case.module(torch.float32)
        out = inputs.run(module)
        want = (*inputs.q.shape[:3], inputs.v.shape[-1])
        if not isinstance(out, Tensor):
            raise UnusableError(f"forward returns {type(out).__name__}, not a tensor")
        if tuple(out.shape) != want:
            raise UnusableError(f"output has shape {tuple(out.shape)}, not (B, H, Lq, Dv) = {want}")
        if out.dtype != dtype:
            raise ContractError(f"output is {out.dtype} for values in {dtype}")
        if not out.isfinite().all():
            raise ContractError(f"output is not finite in {dtype}")
        if not out.requires_grad:
            continue
        parameters = [p for p in module.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(
            out.float().square().sum(), [*leaves.values(), *parameters], allow_unused=True
        )
        if any(g is not None and not g.isfinite().all() for g in gradients):
            raise ContractError(f"a gradient is not finite in {dtype}")


def _masked(inputs: Inputs, mask: Tensor) -> Inputs:
    own = inputs.given.query_mask if inputs.cross else mask
    return inputs.with_context(key_mask=mask, query_mask=own)


def check_masked_keys(case: Case) -> None:
    """Masked keys have no effect: the output equals that with the keys removed, whatever is in
    them; a row that sees no key returns zeros.
    """
    inputs = case.inputs()
    batch, length = inputs.k.shape[0], inputs.k.shape[-2]
    keep = length - 9
    mask = torch.ones(batch, length, dtype=torch.bool)
    mask[:, keep:] = False
    module = case.module()
    masked = _masked(inputs, mask).run(module)
    noisy = replace(
        _masked(inputs, mask),
        k=inputs.k.masked_fill(~mask[:, None, :, None], 50.0),
        v=inputs.v.masked_fill(~mask[:, None, :, None], -50.0),
    )
    if not case.pattern.cross:
        same(masked[:, :, :keep], noisy.run(module)[:, :, :keep], "content of masked keys matters")
        short = inputs.cut(keep).run(module)
        same(masked[:, :, :keep], short, "masking keys differs from removing them")
    else:
        same(masked, noisy.run(module), "content of masked keys matters")
        removed = inputs.changed(keys=lambda x: x[:, :keep])
        same(masked, removed.run(module), "masking keys differs from removing them")
    mask = torch.ones(batch, length, dtype=torch.bool)
    mask[0] = False
    empty = _masked(inputs, mask).run(module)
    if not torch.equal(empty[0], torch.zeros_like(empty[0])):
        raise ContractError(
            f"a row that sees no key does not return zeros{empty_rows(case.pattern, empty[0])}"
        )


def check_batch_independence(case: Case) -> None:
    """A batch row gives the same output alone."""
    inputs, module = case.inputs(), case.module()
    together = inputs.run(module)
    for row in range(len(together)):
        alone = inputs.rows(slice(row, row + 1)).run(module)
        same(together[row : row + 1], alone, "batch rows influence each other")


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
    batch, length = inputs.q.shape[0], inputs.q.shape[-2]
    for cut in (1, length // 2, length - 1):
        changed = inputs.noisy_after(torch.full((batch,), cut), 3.0, case.generator(2))
        same(
            out[:, :, :cut],
            changed.run(module)[:, :, :cut],
            f"changing tokens from {cut} on changes earlier outputs",
        )
        same(
            out[:, :, :cut],
            inputs.cut(cut).run(module),
            f"removing tokens from {cut} on changes earlier outputs",
        )
    _check_gradient_leak(inputs, module)


def _check_gradient_leak(inputs: Inputs, module: Attention) -> None:
    cut = inputs.q.shape[-2] // 2
    names = {"q": "queries"} if inputs.cross else {"q": "queries", "k": "keys", "v": "values"}
    leaked, leaves = inputs.leaves()
    out = leaked.run(module)
    if not out.requires_grad:
        return
    gradients = torch.autograd.grad(
        out[:, :, :cut].square().sum(), [leaves[name] for name in names], allow_unused=True
    )
    for name, gradient in zip(names.values(), gradients, strict=True):
        if gradient is not None and gradient[:, :, cut:].abs().max() > 0:
            raise ContractError(f"outputs before {cut} have a gradient to later {name}")


def token(inputs: Inputs, t: int) -> AttentionContext:
    """Layer input, time and position of query t alone; in self attention they are the key's."""
    given, place = inputs.given, torch.tensor([t])
    if given.query_positions is not None:
        place = given.query_positions[t : t + 1]
    own = None if given.query_input is None else given.query_input[:, t : t + 1]
    time = None if given.query_times is None else given.query_times[:, t : t + 1]
    if inputs.cross:
        return AttentionContext(query_input=own, query_positions=place, query_times=time)
    return AttentionContext(
        query_input=own,
        key_input=own,
        query_positions=place,
        key_positions=place,
        query_times=time,
        key_times=time,
    )


def check_step(case: Case) -> str | None:
    """Decoding token by token equals the parallel form, after an empty and after a real prompt."""
    if not case.cls.decodes():
        return NOT_IMPLEMENTED
    if not case.pattern.causal:
        return None
    inputs, module = case.inputs(), case.module()
    out = inputs.run(module)
    length = inputs.q.shape[-2]
    for prompt in (0, 5):
        if case.pattern.cross:
            state = module.prefill(inputs.k, inputs.v, inputs.context)
        else:
            past = inputs.cut(prompt)
            state = module.prefill(past.k, past.v, past.context)
        for t in range(prompt, length):
            own = slice(t, t + 1)
            k_t = None if case.pattern.cross else inputs.k[:, :, own]
            v_t = None if case.pattern.cross else inputs.v[:, :, own]
            extra = {"context": token(inputs, t)} if case.cls.step_takes_context() else {}
            row, state = module.step(inputs.q[:, :, own], k_t, v_t, state, **extra)
            same(out[:, :, own], row, f"step at token {t} differs from the parallel form")
    return None


def check_reference(case: Case) -> str | None:
    """`forward` equals `reference` in float64, with and without masked keys."""
    if case.cls.reference is Attention.reference:
        return NOT_IMPLEMENTED
    inputs, module = case.inputs(), case.module()
    mask = torch.ones(inputs.k.shape[0], inputs.k.shape[-2], dtype=torch.bool)
    mask[0, 3:9] = False
    mask[1, ::2] = False
    for masked in (inputs, _masked(inputs, mask)):
        want = module.reference(masked.q, masked.k, masked.v, masked.context)
        same(want, masked.run(module), "forward differs from the reference")
    return None


def check_options(case: Case) -> None:
    """The options of the info record are the constructor's keyword arguments, same defaults, and
    its presets set only options that it has.

    An undecorated class has written no record: what is inferred for it are the arguments that the
    command line can give, and the others keep their defaults.
    """
    if is_undecorated(case.cls):
        return
    parameters = list(inspect.signature(case.cls.__init__).parameters.values())[2:]
    stated = case.cls.info.defaults()
    actual = {p.name: p.default for p in parameters if p.kind not in _VARIADIC}
    if stated != actual:
        raise ContractError(f"the info record states options {stated}, the constructor {actual}")
    for name, values in case.cls.info.presets.items():
        try:
            resolve_options(case.cls.info, values)
        except OptionError as error:
            raise ContractError(f"preset {name!r}: {error}") from None
