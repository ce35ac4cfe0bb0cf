"""Every contract check catches a mechanism that breaks just its rule."""

import pytest
import torch
from torch import nn

from attentions.softmax import SoftmaxAttention
from cab import Attention, AttentionInfo, Grade, Option, Pattern
from cab.checks import (
    CHECKS,
    Case,
    Outcome,
    all_parameters,
    count_parameters,
    examine,
    run_checks,
    unregistered,
)
from cab.cli.check import check_command
from cab.errors import ContractError
from tests.contract.share import share_of

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
    assert run_checks(Good, pattern, {}, seed=0, share=share_of(pattern)) == {}


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


def test_what_is_not_implemented_is_not_ok():
    class WithoutReference(Attention):
        info = INFO

        def forward(self, q, k, v, context=None):
            return Good(self.spec)(q, k, v, context)

    found = {f.rule: f.outcome for f in examine(WithoutReference, CC, {}, seed=0, draws=0)}
    missing = {rule for rule, outcome in found.items() if outcome is Outcome.NOT_IMPLEMENTED}
    assert missing == {"step", "reference", "decoding", "own reference", "cost formulas"}
    assert set(found.values()) == {Outcome.OK, Outcome.NOT_IMPLEMENTED}


def test_a_violation_names_its_condition_and_a_seed_repeats_it():
    class LeaksAtSomeLengths(Good):
        def forward(self, q, k, v, context=None):
            out = super().forward(q, k, v, context)
            return out + v.mean() if k.shape[-2] % 7 == 3 and k.shape[-2] > 200 else out

    complaints = []
    for _ in range(2):
        with pytest.raises(ContractError) as error:
            CHECKS["causality"](Case(LeaksAtSomeLengths, CS, {}, seed=5, draws=60))
        complaints.append(str(error.value))
    assert complaints[0] == complaints[1]
    assert "Lk=" in complaints[0]
    assert "seed=" in complaints[0]


def test_conditions_are_others_for_another_seed_and_cover_the_space():
    drawn = [
        at.condition
        for seed in range(30)
        for at in Case(Good, CS, {}, seed, draws=20).through((), "coverage")
    ]
    assert len(set(drawn)) == len(drawn)
    for name in ("dtype", "mask", "given", "training", "autocast", "grad", "scale", "strided"):
        assert len({getattr(c, name) for c in drawn}) > 1, name
    lengths = {c.length_k for c in drawn}
    assert {1, 2, 3} <= lengths
    assert max(lengths) > 1000
    assert any(c.length_k % 64 == 0 for c in drawn)
    assert max(c.head_dim for c in drawn) == 128
    assert max(c.layer_index for c in drawn) > 5


def test_parameters_are_counted_where_they_hide():
    class Hides(Good):
        def __init__(self, spec):
            super().__init__(spec)
            self.known = nn.Parameter(torch.ones(3))
            self.register_buffer("mean", torch.zeros(5))
            self.box = [{"deep": nn.Parameter(torch.ones(7))}]

        def forward(self, q, k, v, context=None):
            if self.training:
                self.mean += v.mean()
            scale = self.known.sum() * self.box[0]["deep"].mean()
            return super().forward(q, k, v, context) * scale.to(v.dtype)

    counts = count_parameters(Case(Hides, NS, {}))
    assert (counts.registered, counts.hidden, counts.buffers) == (3, 7, 5)
    assert str(counts) == "3 parameters, 7 hidden, 5 in buffers that learn"
    module = Case(Hides, NS, {}).module()
    assert sorted(p.numel() for p in all_parameters(module)) == [3, 7]
    assert [p.numel() for p in unregistered(module)] == [7]


def test_cab_check_prints_outcomes_parameters_and_the_seed(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(
        "from cab import Attention\n"
        "class Own(Attention):\n"
        "    def forward(self, q, k, v, context=None):\n"
        "        mask = None if context is None else context.key_mask\n"
        "        return v if mask is None else v.masked_fill(~mask[:, None, :, None], 0)\n"
    )
    code = check_command(f"{path}:Own", ["noncausal-self"], [], "", seed=3)
    out = capsys.readouterr().out
    assert code == 0, out
    assert "not implemented" in out
    assert "0 parameters" in out
    assert "--seed 3" in out
