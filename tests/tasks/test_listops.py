"""ListOps: grammar, values against a parser of its own, the distribution, the groups."""

from __future__ import annotations

import pytest
import torch

from cab import Pattern, Scale
from tasks.listops.expressions import (
    CLOSE,
    FIRST_OPERATOR,
    OPERATORS,
    PAD,
    TOKENS,
    Expressions,
    Grammar,
    draw_expressions,
    spell,
)
from tasks.listops.task import ListOps

GRAMMAR = Grammar(max_depth=4, max_arguments=10, min_length=4, max_length=80)


def draw(count: int, grammar: Grammar = GRAMMAR, seed: int = 0) -> Expressions:
    return draw_expressions(count, grammar, torch.Generator().manual_seed(seed))


def parse(words: list[str]) -> tuple[int, int, list[int]]:
    """Value, nesting and numbers of arguments of the expression that the words begin with, which
    are taken away.
    """
    word = words.pop(0)
    if not word.startswith("["):
        return int(word), 0, []
    values, nesting, arities = [], 0, []
    while words[0] != "]":
        value, below, more = parse(words)
        values.append(value)
        nesting = max(nesting, below)
        arities += more
    words.pop(0)
    ordered, count = sorted(values), len(values)
    value = {
        "MAX": max(values),
        "MIN": min(values),
        "MED": int((ordered[(count - 1) // 2] + ordered[count // 2]) / 2),
        "SUM_MOD": sum(values) % 10,
    }[word[1:]]
    return value, nesting + 1, [count, *arities]


@pytest.mark.parametrize(
    "grammar",
    [GRAMMAR, Grammar(3, 5, 4, 24), Grammar(10, 10, 100, 400), Grammar(2, 3, 4, 5)],
    ids=str,
)
def test_values_and_nesting_are_those_of_a_parser(grammar: Grammar) -> None:
    drawn = draw(100, grammar)
    for tokens, length, nesting, value in zip(
        drawn.tokens, drawn.lengths.tolist(), drawn.nesting, drawn.values, strict=True
    ):
        words = spell(tokens).split()
        assert len(words) == length
        found, deep, arities = parse(words)
        assert not words, "one expression and nothing behind it"
        assert (found, deep) == (value.item(), nesting.item())
        assert min(arities) >= 2
        assert max(arities) <= grammar.max_arguments
        assert deep < grammar.max_depth


def test_by_hand() -> None:
    text = "[MAX 2 [MED 1 4 7 2 ] [SUM_MOD 9 8 ] [MIN 9 5 ] ]"
    assert parse(text.split()) == (7, 2, [4, 4, 2, 2])


def test_padding_and_window() -> None:
    drawn = draw(500)
    assert drawn.lengths.min() >= GRAMMAR.min_length
    assert drawn.lengths.max() == drawn.tokens.shape[1] <= GRAMMAR.max_length
    inside = torch.arange(drawn.tokens.shape[1]) < drawn.lengths[:, None]
    assert ((drawn.tokens != PAD) == inside).all()
    assert (drawn.tokens < TOKENS).all()
    assert (drawn.roots >= 0).all()
    assert (drawn.roots < len(OPERATORS)).all()


def test_distribution_without_a_window() -> None:
    """Two levels below the root: operators, arguments and digits as the grammar has them."""
    drawn = draw(4000, Grammar(3, 10, 1, 200))
    roots = drawn.roots.bincount(minlength=4) / 4000
    torch.testing.assert_close(roots, torch.full((4,), 0.25), atol=0.03, rtol=0)
    digits = drawn.tokens[(drawn.tokens != PAD) & (drawn.tokens < FIRST_OPERATOR)] - 1
    shares = digits.bincount(minlength=10) / len(digits)
    torch.testing.assert_close(shares, torch.full((10,), 0.1), atol=0.01, rtol=0)
    # The root has 6 arguments on average, a quarter of them operators with 6 digits each.
    operators = (drawn.tokens >= FIRST_OPERATOR) & (drawn.tokens < CLOSE)
    assert operators.sum().item() / 4000 == pytest.approx(1 + 6 / 4, abs=0.1)
    assert len(digits) / 4000 == pytest.approx(6 * 3 / 4 + 6 / 4 * 6, abs=0.4)
    assert (drawn.nesting == 1).double().mean().item() == pytest.approx(
        sum(0.75**n for n in range(2, 11)) / 9, abs=0.02
    )


def test_a_window_only_selects() -> None:
    """A stream of wide trees, filtered by hand, begins with the expressions of the window."""
    wide = draw(4096, Grammar(3, 5, 1, 200))
    narrow = draw(60, Grammar(3, 5, 8, 12))
    # Draws come in lots, so compare distributions: values given the window.
    kept = (wide.lengths >= 8) & (wide.lengths <= 12)
    expected = wide.nesting[kept].double().mean().item()
    many = draw(2000, Grammar(3, 5, 8, 12))
    assert many.nesting.double().mean().item() == pytest.approx(expected, abs=0.06)
    assert len(narrow.values) == 60


def test_the_root_operator_tells_something_and_the_evaluator_everything() -> None:
    task = ListOps(Pattern.NONCAUSAL_SELF, Scale.SMALL)
    known = task.references(0)
    assert known["evaluator"] == 1.0
    assert 0.1 < known["majority-class"] < known["root-operator"] < 0.5


def test_the_root_operator_reference_against_theory() -> None:
    """Trees of one operator over two to five digits: the chance of the commonest value."""
    drawn = draw(20_000, Grammar(2, 5, 1, 7))
    at_most = sum(0.9**n for n in range(2, 6)) / 4
    share_of_nine = (drawn.values[drawn.roots == 0] == 9).double().mean().item()
    assert share_of_nine == pytest.approx(1 - at_most, abs=0.02)
    sums = drawn.values[drawn.roots == 3].bincount(minlength=10) / (drawn.roots == 3).sum()
    torch.testing.assert_close(sums, torch.full((10,), 0.1), atol=0.02, rtol=0)


def test_groups_part_the_expressions() -> None:
    task = ListOps(Pattern.NONCAUSAL_SELF, Scale.SMALL)
    examples = task.examples("test", 0)
    groups = task.groups(examples)
    total = len(examples["labels"])
    for names in (
        ("max", "min", "med", "sum_mod"),
        ("depth_1", "depth_2", "depth_3", "deeper"),
        ("length_1", "length_2", "length_3", "length_4"),
    ):
        counted = sum(groups[name].long() for name in names)
        assert counted.eq(1).all()
        assert sum(int(groups[name].sum()) for name in names) == total
    assert not groups["deeper"].any(), "four levels nest three operators"
    assert (
        examples["lengths"][groups["length_1"]].max()
        < examples["lengths"][groups["length_2"]].min()
    )


def test_scale_base_is_long_range_arenas() -> None:
    drawn = ListOps(Pattern.NONCAUSAL_SELF, Scale.BASE).setting.grammar
    assert (drawn.max_depth, drawn.max_arguments) == (10, 10)
    few = draw(8, drawn)
    assert few.lengths.min() >= 512
    assert few.lengths.max() <= 2048
    assert few.nesting.max() <= 9
    assert parse(spell(few.tokens[0]).split())[0] == few.values[0]
