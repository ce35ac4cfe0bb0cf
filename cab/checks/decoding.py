"""Decoding is the parallel form: token by token after prompts of any length, padded ones too, and
with fewer queries than keys.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor

from cab.attention_context import AttentionContext
from cab.attention_contract import Attention, DecodeState
from cab.checks.case import Case
from cab.checks.causality import is_random
from cab.checks.compare import excess, rounding_bar
from cab.checks.conditioning import rounding_noise
from cab.checks.conditions import Condition, drawn_length
from cab.checks.inputs import Inputs
from cab.checks.small import NOT_IMPLEMENTED, token

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64

_LAST = (
    Condition(F64, 2, 2, 8, 6, 34, 34),
    Condition(F32, 2, 4, 16, 16, 190, 190, layer_index=1, layers=2),
    Condition(BF16, 2, 2, 64, 64, 65, 65),
    Condition(F64, 4, 2, 8, 8, 70, 70, mask="mixed", training=True),
    Condition(F32, 1, 1, 8, 8, 1100, 1100, given="none"),
    Condition(F64, 2, 2, 8, 8, 130, 130, given="all"),
)


def check_last_queries(case: Case) -> str | None:
    """In causal self attention with Lq < Lk, query i stands at key i + Lk - Lq: the outputs are
    the last rows of the whole. What pools over queries refuses the call (NotImplementedError).
    """
    if not case.pattern.causal or case.pattern.cross:
        return None
    try:
        _last_queries(case)
    except NotImplementedError:
        return NOT_IMPLEMENTED
    return None


def _last_queries(case: Case) -> None:
    for at in case.through(_LAST, "last queries"):
        rng = random.Random(f"last {at.seed}")
        inputs = at.inputs()
        out = at.call(inputs)
        if at.condition.training and is_random(at, inputs, out):
            continue  # what is drawn depends on the shape
        length = out.shape[-2]
        for count in {1, rng.randint(1, length), max(1, length - 1)}:
            got = at.call(last_queries(inputs, count))
            _agrees(at, inputs, out[:, :, length - count :], got, out,
                    f"the last {count} queries alone give other outputs")  # fmt: skip


def last_queries(inputs: Inputs, count: int) -> Inputs:
    """Self attention of the last queries to all keys."""
    c, start = inputs.given, inputs.q.shape[-2] - count
    if inputs.context is None:
        return Inputs(inputs.q[:, :, start:], inputs.k, inputs.v, None, inputs.cross)

    def last(x: Tensor | None) -> Tensor | None:
        return None if x is None else x[..., start:]

    context = AttentionContext(
        query_mask=last(c.query_mask),
        key_mask=c.key_mask,
        query_input=None if c.query_input is None else c.query_input[:, start:],
        key_input=c.key_input,
        query_positions=last(c.query_positions),
        key_positions=c.key_positions,
        query_times=last(c.query_times),
        key_times=c.key_times,
    )
    return Inputs(inputs.q[:, :, start:], inputs.k, inputs.v, context, inputs.cross)


def _agrees(
    case: Case, inputs: Inputs, want: Tensor, got: Tensor, out: Tensor, complaint: str
) -> None:
    if want.shape != got.shape:
        raise case.fail(f"{complaint}: shape {tuple(got.shape)}")
    difference, _ = excess(want, got)
    size = excess(out, out)[1]
    bar = rounding_bar(BF16 if case.condition.autocast else want.dtype, True) * size
    if difference > bar:
        bar += rounding_noise(case, inputs, out)
    if not difference <= bar:
        raise case.fail(complaint, difference)


_STEPS = (
    # (condition, tokens of the prompt); all that follow are stepped through.
    (Condition(F64, 2, 2, 8, 6, 160, 160), 5),
    (Condition(F64, 4, 2, 8, 8, 60, 50, mask="mixed", given="bare"), 37),
    (Condition(F32, 2, 2, 16, 8, 40, 40, given="all", layer_index=1, layers=2), 1),
    (Condition(F64, 4, 2, 8, 8, 75, 75, mask="holes"), 65),
    (Condition(BF16, 2, 2, 32, 32, 70, 70), 64),
    (Condition(F32, 3, 2, 8, 8, 24, 300, max_length=2048, mask="prefix"), 20),
    (Condition(F64, 2, 1, 8, 8, 20, 1030), 1020),
)


def check_decoding(case: Case) -> str | None:
    """Steps after prompts of any length and padding, far enough for drift to show; the context of
    the prompt and of each token is given where the parallel form has one.
    """
    if not case.cls.decodes():
        return NOT_IMPLEMENTED
    if not case.pattern.causal:
        return None
    rng = random.Random(f"decoding {case.seed}")
    prompts = dict(enumerate(p for _, p in _STEPS))
    for at in case.through([c for c, _ in _STEPS], "decoding"):
        length = at.condition.length_q
        prompt = min(prompts.get(at.number, length), length - 1)
        if at.number >= len(_STEPS):
            # Few steps after a prompt of any length
            prompt = max(0, drawn_length(rng, length) - 1)
            prompt = min(max(prompt, length - 12), length - 1) if rng.random() < 0.8 else prompt
            prompt = max(prompt, length - 40)
        _decode(at.with_(training=False, grad="no_grad"), prompt)
    return None


def _decode(case: Case, prompt: int) -> None:
    inputs = case.inputs()
    if not inputs.cross:
        inputs = _padded_prompt(inputs, prompt)
    elif inputs.given.query_mask is not None:
        inputs = inputs.with_context(query_mask=None)  # each query is stepped, so none is padding
    out = case.call(inputs)
    module = case.module()
    length, size = inputs.q.shape[-2], excess(out, out)[1]
    bar = rounding_bar(BF16 if case.condition.autocast else out.dtype, True) * size
    noise: float | None = None
    start = 0 if inputs.cross else prompt
    length = min(length, start + 160)
    with case.mode():
        state = prefilled(module, inputs, start)
        for t in range(start, length):
            row, state = stepped(module, inputs, t, state)
            want = out[:, :, t : t + 1]
            typed = row.dtype is want.dtype or case.condition.autocast
            if row.shape != want.shape or not typed:
                raise case.fail(f"step gives {tuple(row.shape)}, {row.dtype} at token {t}")
            difference = excess(want, row)[0]
            if difference > bar and noise is None:
                noise = rounding_noise(case, inputs, out)
                bar += noise
            if not difference <= bar:
                raise case.fail(
                    f"step at token {t} after a prompt of {start} differs from the parallel form",
                    difference,
                )


def prefilled(module: Attention, inputs: Inputs, prompt: int) -> DecodeState:
    """The state after the first tokens, or after the whole source."""
    part = inputs if inputs.cross else inputs.cut(prompt)
    state: DecodeState = module.prefill(part.k, part.v, part.context)
    return state


def stepped(
    module: Attention, inputs: Inputs, t: int, state: DecodeState
) -> tuple[Tensor, DecodeState]:
    """The output of token t, and the state after it."""
    own = slice(t, t + 1)
    k_t = None if inputs.cross else inputs.k[:, :, own]
    v_t = None if inputs.cross else inputs.v[:, :, own]
    takes = type(module).step_takes_context()
    extra = {"context": token(inputs, t)} if takes and inputs.context is not None else {}
    result: tuple[Tensor, DecodeState] = module.step(inputs.q[:, :, own], k_t, v_t, state, **extra)
    return result


def _padded_prompt(inputs: Inputs, prompt: int) -> Inputs:
    """Masked keys in the prompt alone: every token that is stepped is valid."""
    mask = inputs.key_mask
    if mask is None:
        return inputs
    later = torch.arange(mask.shape[1]) >= prompt
    return inputs.with_context(key_mask=mask | later, query_mask=mask | later)
