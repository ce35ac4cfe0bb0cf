"""Every contract check catches a mechanism that breaks just its rule."""

import pytest
import torch

from attentions.softmax import SoftmaxAttention
from cab import AttentionInfo, Grade, Option, Pattern
from cab.checks import CHECKS, Case, run_checks
from cab.errors import ContractError

CS, NS, CC = Pattern.CAUSAL_SELF, Pattern.NONCAUSAL_SELF, Pattern.CAUSAL_CROSS
INFO = AttentionInfo(
    id="bad",
    title="",
    formula="",
    time="",
    memory="",
    patterns=dict.fromkeys(Pattern, Grade.FAITHFUL),
)


class Good(SoftmaxAttention):
    info = INFO


class WrongShape(Good):
    def forward(self, q, k, v, context=None):
        return super().forward(q, k, v, context)[..., :-1]


class WrongType(Good):
    def forward(self, q, k, v, context=None):
        return super().forward(q, k, v, context).float()


class NotFinite(Good):
    def forward(self, q, k, v, context=None):
        return super().forward(q, k, v, context) / (q.sum() * 0)


class GradientNotFinite(Good):
    def forward(self, q, k, v, context=None):
        return super().forward(q, k, v, context) + (v * 0).square().sum(-1, True).sqrt()


class IgnoresMask(Good):
    def forward(self, q, k, v, context=None):
        return super().forward(q, k, v)


class EmptyRowsNotZero(Good):
    def forward(self, q, k, v, context=None):
        out = super().forward(q, k, v, context)
        if context is not None and context.key_mask is not None:
            empty = ~context.key_mask.any(-1)
            out = torch.where(empty[:, None, None, None], torch.ones_like(out), out)
        return out


class MixesTheBatch(Good):
    def forward(self, q, k, v, context=None):
        return super().forward(q, k, v, context) + q.mean(0, keepdim=True).mean() * 1e-3


class Random(Good):
    def forward(self, q, k, v, context=None):
        out = super().forward(q, k, v, context)
        return out + 1e-6 * torch.randn_like(out)


class ReadsLaterTokens(Good):
    def forward(self, q, k, v, context=None):
        return super().forward(q, k, v, context) + 1e-6 * v.mean(-2, keepdim=True)


class ReadsLaterQueries(Good):
    def forward(self, q, k, v, context=None):
        return super().forward(q, k, v, context) + 1e-6 * q.mean(-2, keepdim=True).mean(-1, True)


class KnowsTheLength(Good):
    def forward(self, q, k, v, context=None):
        return super().forward(q, k, v, context) * (1 + 1e-6 * q.shape[-2])


class LeaksByGradientOnly(Good):
    def forward(self, q, k, v, context=None):
        later = q.mean(-2, keepdim=True).mean(-1, keepdim=True)
        return super().forward(q, k, v, context) + later - later.detach()


class WrongStep(Good):
    def step(self, q_t, k_t, v_t, state):
        out, state = super().step(q_t, k_t, v_t, state)
        return out * 1.001, state


class WrongReference(Good):
    def reference(self, q, k, v, context=None):
        return super().reference(q, k, v, context) * 1.001


class MaskedReferenceDiffers(Good):
    def reference(self, q, k, v, context=None):
        return super().reference(q, k, v)


class UndeclaredOption(Good):
    def __init__(self, spec, width=3):
        super().__init__(spec)


class OtherDefault(Good):
    info = AttentionInfo(
        id="bad",
        title="",
        formula="",
        time="",
        memory="",
        patterns=INFO.patterns,
        options=(Option("width", 4, ""),),
    )

    def __init__(self, spec, width=3):
        super().__init__(spec)


@pytest.mark.parametrize("pattern", list(Pattern))
def test_a_good_mechanism_passes(pattern):
    assert run_checks(Good, pattern, {}) == {}


@pytest.mark.parametrize(
    ("cls", "pattern", "check"),
    [
        (WrongShape, NS, "shape and dtype"),
        (WrongType, NS, "shape and dtype"),
        (NotFinite, NS, "shape and dtype"),
        (GradientNotFinite, NS, "shape and dtype"),
        (IgnoresMask, NS, "masked keys"),
        (IgnoresMask, CC, "masked keys"),
        (EmptyRowsNotZero, CC, "masked keys"),
        (MixesTheBatch, NS, "batch independence"),
        (Random, NS, "determinism"),
        (ReadsLaterTokens, CS, "no leak"),
        (ReadsLaterQueries, CC, "no leak"),
        (KnowsTheLength, CS, "no leak"),
        (KnowsTheLength, CC, "no leak"),
        (LeaksByGradientOnly, CS, "no leak"),
        (LeaksByGradientOnly, CC, "no leak"),
        (WrongStep, CS, "step"),
        (WrongStep, CC, "step"),
        (WrongReference, NS, "reference"),
        (MaskedReferenceDiffers, NS, "reference"),
        (UndeclaredOption, NS, "options"),
        (OtherDefault, NS, "options"),
    ],
)
def test_a_bad_mechanism_is_caught(cls, pattern, check):
    with pytest.raises(ContractError):
        CHECKS[check](Case(cls, pattern, {}))


def test_reading_the_future_is_allowed_where_the_pattern_is_not_causal():
    CHECKS["no leak"](Case(ReadsLaterTokens, NS, {}))


def test_a_mechanism_that_raises_is_reported_and_not_raised():
    class Raises(Good):
        def forward(self, q, k, v, context=None):
            raise ValueError("no")

    assert "ValueError: no" in run_checks(Raises, NS, {})["shape and dtype"]
