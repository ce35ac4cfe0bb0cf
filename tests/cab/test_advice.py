"""What `cab check` says of a mechanism that does not work: once, where, and what to write."""

import inspect

import pytest
import torch
from torch import nn

from cab import Attention, Pattern
from cab.attention_contract import infer_attention_info, is_undecorated
from cab.checks import Outcome, examine
from cab.checks.report import FIRST
from cab.cli.check import check_command
from tests.contract.share import share_of

CS, NS, CC = Pattern.CAUSAL_SELF, Pattern.NONCAUSAL_SELF, Pattern.CAUSAL_CROSS


def seen_keys(v, context):
    mask = None if context is None else context.key_mask
    return v.new_ones(v.shape[0], 1, v.shape[2], 1) if mask is None else mask[:, None, :, None]


class Mean(Attention):
    """Every query gets the mean of the values."""

    def forward(self, q, k, v, context=None):
        keep = seen_keys(v, context).to(v.dtype)
        mean = (v * keep).sum(-2, keepdim=True) / keep.sum(-2, keepdim=True).clamp_min(1)
        return mean.expand(*q.shape[:-1], v.shape[-1])


class NoForward(Attention):
    pass


class NoContext(Attention):
    def forward(self, q, k, v):
        return v


class NoSpec(Mean):
    def __init__(self):
        super().__init__(None)


class OptionWithoutDefault(Mean):
    def __init__(self, spec, width):
        super().__init__(spec)


class NoTensor(Mean):
    def forward(self, q, k, v, context=None):
        return None


class OneHead(Mean):
    def forward(self, q, k, v, context=None):
        return super().forward(q, k, v, context)[:, :1]


class CrashesAtOnce(Mean):
    def forward(self, q, k, v, context=None):
        raise KeyError("no such thing")


class OtherDtype(Mean):
    def __init__(self, spec):
        super().__init__(spec)
        self.proj = nn.Linear(spec.embed_dim or spec.heads * spec.head_dim, 1)

    def forward(self, q, k, v, context=None):
        return super().forward(q, k, v, context) * self.proj(context.query_input).mean()


class CrashesWhereItIsLong(Mean):
    def forward(self, q, k, v, context=None):
        if k.shape[-2] > 60:
            raise IndexError(f"{k.shape[-2]} keys")
        return super().forward(q, k, v, context)


class OddArguments(Mean):
    def __init__(self, spec, a=None, sizes=(1, 2), width=3, *, name="x", **more):
        super().__init__(spec)


for one in [c for c in vars().copy().values() if isinstance(c, type) and c is not Attention]:
    if issubclass(one, Attention):
        one.info = infer_attention_info(one)


@pytest.mark.parametrize(
    ("cls", "says"),
    [
        (NoForward, "NoForward has no forward: write def forward(self, q, k, v, context=None)"),
        (NoContext, "forward takes (self, q, k, v)"),
        (NoSpec, "it must take (self, spec)"),
        (OptionWithoutDefault, "'width'"),
        (NoTensor, "forward returns NoneType"),
        (OneHead, "output has shape"),
        (CrashesAtOnce, "KeyError: 'no such thing' ("),
        (OtherDtype, "cast to the weight's dtype"),
    ],
)
@pytest.mark.parametrize("pattern", [CS, CC])
def test_what_cannot_work_at_all_is_said_once(cls, says, pattern):
    (found,) = examine(cls, pattern, {}, seed=0, draws=0)
    assert (found.rule, found.outcome, found.last) == (FIRST, Outcome.FAIL, True)
    assert says in found.message
    assert "\n" not in found.message


@pytest.mark.parametrize("cls", [CrashesAtOnce, CrashesWhereItIsLong])
def test_a_crash_is_told_once_with_the_line_of_the_candidate(cls):
    found = [f for f in examine(cls, CC, {}, seed=0, draws=0) if f.outcome is Outcome.FAIL]
    line = inspect.getsourcelines(cls)[1]
    raising = line + (2 if cls is CrashesAtOnce else 3)
    assert f"test_advice.py:{raising})" in found[0].message
    assert all(f.message == f"crashes as under {found[0].rule!r}" for f in found[1:])


def test_a_class_is_not_told_about_a_record_that_it_never_wrote():
    assert is_undecorated(OddArguments)
    assert set(OddArguments.info.defaults()) == {"width", "name"}
    found = examine(OddArguments, NS, OddArguments.info.defaults(), seed=0, draws=0)
    assert [f for f in found if f.outcome is Outcome.FAIL] == []


@pytest.mark.parametrize("filling", ["least", "infinite"])
@pytest.mark.parametrize("pattern", [NS, CC, CS])
def test_the_recipe_for_rows_without_keys_mends_them(pattern, filling):
    """The expression in the message is what the mended mechanism runs."""

    class Softmax(Attention):
        recipe = ""

        def forward(self, q, k, v, context=None):
            visible = seen_keys(v, context).bool().transpose(-1, -2)
            if pattern is CS:
                place = torch.arange(k.shape[-2])
                visible = visible & (place <= place[-q.shape[-2] :, None])
            scores = q @ k.transpose(-1, -2)
            finite = filling == "least" or self.recipe
            least = torch.finfo(scores.dtype).min if finite else -torch.inf
            out = scores.masked_fill(~visible, least).softmax(-1) @ v + 0.5
            if context is not None and context.key_mask is not None and self.recipe:
                names = {"context": context, "q": q, "out": out}
                out = eval(self.recipe, names)
            return out

    Softmax.info = infer_attention_info(Softmax)
    broken = examine(Softmax, pattern, {}, seed=0, draws=0, share=(0, 9))
    said = {f.rule: f.message for f in broken}
    message = said["masked keys"]
    assert "does not return zeros; where there is a key_mask, end with out." in message
    assert ("torch.finfo(scores.dtype).min" in message) == (filling == "infinite")
    Softmax.recipe = message.partition("end with ")[2].split(", and mask")[0]
    found = examine(Softmax, pattern, {}, seed=0, draws=0, share=share_of(pattern, filling))
    assert {f.rule: f.message for f in found if f.outcome is Outcome.FAIL} == {}


SOURCE = '''from cab import Attention
from torch import nn


class Mean(Attention):
    """Every query gets the mean of the values."""

    def forward(self, q, k, v, context=None):
        keep = v.new_ones(v.shape[0], 1, v.shape[2], 1)
        if context is not None and context.key_mask is not None:
            keep = context.key_mask[:, None, :, None].to(v.dtype)
        mean = (v * keep).sum(-2, keepdim=True) / keep.sum(-2, keepdim=True).clamp_min(1)
        return mean.expand(*q.shape[:-1], v.shape[-1])


class Broken(Attention):
    def forward(self, q, k, v, context=None):
        return q.mean()


class Gated(Mean):
    def __init__(self, spec):
        super().__init__(spec)
        self.gate = nn.Parameter(__import__("torch").ones(spec.heads, 1, 1))

    def forward(self, q, k, v, context=None):
        return super().forward(q, k, v, context) * self.gate.to(v.dtype)
'''


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


def test_an_undecorated_class_is_checked_on_the_patterns_that_it_can_hold(mine, capsys):
    assert check_command(f"{mine}:Mean", ["all"], [], "", seed=0) == 0
    out = capsys.readouterr().out
    assert "keeps the contract on noncausal-self, noncausal-cross, causal-cross" in out
    assert "cannot hold: causal-self (no leak: " in out
    assert "not implemented, skipped" in out


def test_a_pattern_that_was_named_must_hold(mine, capsys):
    assert check_command(f"{mine}:Mean", ["causal-self"], [], "", seed=0) == 1
    assert "breaks" in capsys.readouterr().out


def test_a_class_that_holds_no_pattern_fails(mine, capsys):
    assert check_command(f"{mine}:Broken", ["all"], [], "", seed=0) == 1
    out = capsys.readouterr().out
    assert out.count("FAIL") == len(Pattern)


def test_the_parameter_budget_is_told(mine, capsys):
    assert check_command(f"{mine}:Gated", ["causal-cross"], [], "", seed=0) == 0
    out = capsys.readouterr().out
    assert "2 parameters (2 heads of 8); of the parameter budget of 10% of a backbone" in out
