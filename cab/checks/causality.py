"""No output depends on what comes after it: at every dtype, mode, size and length.

Each row of the batch has a cut of its own, so that two calls look at many places. Shapes are the
same in both, so nothing but the rounding of a safe maximum may differ; where tokens are removed
instead, sums are taken in another order, and what differs is held to what a change of the inputs
by one rounding does.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor

from cab.checks.case import Case
from cab.checks.compare import excess, rounding_bar
from cab.checks.conditioning import rounding_noise
from cab.checks.conditions import Condition, block_cuts
from cab.checks.inputs import Inputs

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64

_FIXED = (
    # Every cut of short sequences, one for each row of the batch.
    Condition(F32, 33, 1, 8, 8, 34, 34),
    Condition(BF16, 69, 2, 4, 4, 70, 70, training=True),
    Condition(F32, 16, 1, 4, 4, 530, 530),
    Condition(F32, 12, 1, 4, 4, 400, 400, training=True),
    Condition(F64, 9, 2, 16, 16, 190, 190, layer_index=3, layers=4),
    Condition(F32, 8, 4, 8, 8, 150, 300, max_length=4096),
    Condition(F32, 5, 1, 8, 8, 1100, 1100, max_length=2048, given="none"),
    Condition(F32, 4, 6, 64, 64, 65, 80, training=True, layer_index=1, layers=2),
    Condition(F16, 12, 8, 16, 8, 96, 100, mask="mixed", scale=0.1),
    Condition(F32, 6, 3, 32, 32, 128, 128, autocast=True, given="all", scale=3.0),
    Condition(F32, 6, 2, 16, 16, 100, 100, autocast=True, training=True),
    Condition(F32, 6, 3, 128, 64, 33, 40, grad="no_grad", strided=True, scale=1e-2),
    Condition(F64, 5, 2, 8, 8, 257, 257, training=True, mask="mixed", given="bare"),
    Condition(BF16, 3, 2, 64, 64, 512, 300, grad="inference"),
    Condition(F32, 1, 1, 4, 4, 2200, 1100, training=True, max_length=4096),
    Condition(F32, 2, 1, 4, 4, 40, 2200, max_length=2200),
    Condition(F32, 2, 1, 16, 16, 2, 2),
    Condition(F32, 2, 2, 8, 8, 3, 3, training=True),
)


_SHORT = 600
"""Length up to which gradients are looked at"""


def check_causality(case: Case) -> None:
    """Later tokens, changed, removed or by gradient, at real sizes, in every dtype and mode."""
    if not case.pattern.causal:
        return
    for at in case.through(_FIXED, "causality"):
        _check(at, random.Random(f"cuts {at.seed}"), gradient=at.number % 2 == 1)


def _check(case: Case, rng: random.Random, *, gradient: bool) -> None:
    inputs = case.inputs()
    batch, length = inputs.q.shape[0], inputs.q.shape[-2]
    if length == 1 and not case.pattern.cross:
        return
    cuts = block_cuts(length, batch, rng)
    if case.condition.grad == "grad" and (case.condition.training or rng.random() < 0.5):
        inputs = inputs.leaves()[0]  # as they are in a model that is trained
    out = case.call(inputs).detach()
    size = _changed(case, inputs, out, cuts)
    if size and case.condition.training:
        # Rows may be mixed in training (batch normalisation): look again with one cut for all.
        for cut in sorted(set(cuts)):
            if _changed(case, inputs, out, [cut] * batch):
                break
        else:
            size = None
    if size:
        difference, cut = size
        raise case.fail(f"changing tokens from {cut} on changes earlier outputs", difference)
    cut = rng.choice(cuts)
    _truncated(case, inputs, out, cut)
    if gradient and length < _SHORT:
        _by_gradient(case, inputs, cuts)


def _changed(case: Case, inputs: Inputs, out: Tensor, cuts: list[int]) -> tuple[float, int] | None:
    """Size of the largest change of outputs before the cuts, and its cut; None: in rounding."""
    c = case.condition
    noise = 3.0 * c.scale + abs(c.offset)
    cut = torch.tensor(cuts)
    changed = inputs.noisy_after(cut, noise, case.generator(2))
    again = case.call(changed).detach()
    worst = None
    for row, at in enumerate(cuts):
        difference, size = excess(out[row, :, :at], again[row, :, :at])
        bar = rounding_bar(torch.bfloat16 if c.autocast else out.dtype) * size
        if difference > bar and (worst is None or difference > worst[0]):
            if out.dtype in (F32, F64) and not c.autocast:
                bar += rounding_noise(case, inputs, out)
            if difference > bar:
                worst = difference, at
    return worst


def _truncated(case: Case, inputs: Inputs, out: Tensor, cut: int) -> None:
    if case.condition.training and is_random(case, inputs, out):
        return  # what is drawn depends on the shape
    short = case.call(inputs.cut(cut)).detach()
    before = out[:, :, :cut]
    if short.shape != before.shape:
        raise case.fail(f"{cut} queries give an output of shape {tuple(short.shape)}")
    difference, size = excess(before, short)
    dtype = torch.bfloat16 if case.condition.autocast else out.dtype
    bar = rounding_bar(dtype, other_shape=True) * size
    if difference > bar:
        bar += rounding_noise(case, inputs, out)
    if not difference <= bar:
        raise case.fail(f"removing tokens from {cut} on changes earlier outputs", difference)


def _by_gradient(case: Case, inputs: Inputs, cuts: list[int]) -> None:
    """Outputs before the cuts have no gradient to what comes after them."""
    if case.condition.grad != "grad":
        return
    if case.condition.training:
        cuts = [cuts[0]] * len(cuts)  # rows may be mixed
    leaked, leaves = inputs.leaves()
    out = case.call(leaked)
    if not out.requires_grad:
        return
    before = torch.arange(out.shape[-2]) < torch.tensor(cuts)[:, None]
    loss = (out.double().square() * before[:, None, :, None]).sum()
    names = ["q", "query_input"] if case.pattern.cross else list(leaves)
    names = [name for name in names if name in leaves]
    gradients: tuple[Tensor | None, ...] = torch.autograd.grad(
        loss, [leaves[n] for n in names], allow_unused=True
    )
    for name, gradient in zip(names, gradients, strict=True):
        if gradient is None:
            continue
        along = gradient if gradient.ndim == 4 else gradient[:, None]
        later = (torch.arange(along.shape[-2]) >= torch.tensor(cuts)[:, None])[:, None, :, None]
        worst = along.masked_fill(~later, 0.0).abs().max().item()
        bar = torch.finfo(along.dtype).eps * along.abs().max().item()
        if not worst <= bar:
            raise case.fail(f"outputs have a gradient to later {name}", worst)


def is_random(case: Case, inputs: Inputs, out: Tensor) -> bool:
    """Whether the mechanism draws random numbers in training: its output follows the seed."""
    other = case.module()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(case.seed + 8)
        with case.autocast():
            again = inputs.run(other)
    return not torch.equal(again.detach(), out.detach())
