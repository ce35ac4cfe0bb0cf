"""Random ListOps expressions and their values, a batch at a time.

The grammar is that of Long Range Arena (Tay et al. 2021) after Nangia and Bowman (2018):

    expression = digit | "[" operator  expression ... expression  "]",   2 to A arguments

A node at depth d < D (the root has depth 1) is an operator with probability 1/4 and a digit
otherwise; at depth D it is a digit. Operators (MAX, MIN, MED, SUM_MOD), digits 0 to 9 and the
number of arguments are uniform. MED is the median, the middle two averaged and rounded down;
SUM_MOD is the sum modulo 10. An operator and its opening bracket are one token, the closing bracket
another. Expressions whose length in tokens is outside a window are drawn again, so that a root is
an operator.

Trees are drawn level by level: a level holds the nodes of one depth of all trees, children in the
order of their parents. So drawing, values and writing down take a few tensor operations a level.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

OPERATORS = ("MAX", "MIN", "MED", "SUM_MOD")
OPERATOR_SHARE = 0.25
DIGITS = 10

PAD = 0
FIRST_DIGIT = 1
FIRST_OPERATOR = FIRST_DIGIT + DIGITS
CLOSE = FIRST_OPERATOR + len(OPERATORS)
TOKENS = CLOSE + 1
"""Number of ids"""

_MOST_CANDIDATES = 4096
"""Trees drawn at once at most, to bound the memory of deep ones"""


@dataclass(frozen=True)
class Grammar:
    """The free numbers of the distribution."""

    max_depth: int
    """Depth D of a tree, digits included: D - 1 operators can be nested"""
    max_arguments: int
    """Of an operator, A"""
    min_length: int
    """In tokens"""
    max_length: int


@dataclass(frozen=True)
class Expressions:
    """A batch of B expressions."""

    tokens: Tensor
    """(B, N) ids, `PAD` after the end"""
    lengths: Tensor
    """(B,)"""
    nesting: Tensor
    """(B,) operators on the longest path from the root"""
    values: Tensor
    """(B,) 0 to 9"""

    @property
    def roots(self) -> Tensor:
        """(B,) the root's number in `OPERATORS`."""
        return self.tokens[:, 0] - FIRST_OPERATOR


@dataclass(frozen=True)
class _Level:
    operator: Tensor
    """(n,) bool: operator, not digit"""
    symbol: Tensor
    """(n,) the digit, or the number of the operator"""
    parent: Tensor
    """(n,) index into the level above, ascending; at the root the number of the tree"""


def draw_expressions(count: int, grammar: Grammar, generator: torch.Generator) -> Expressions:
    """The first ``count`` of a stream of random trees that fit the window of lengths.

    Rows are padded to the longest of them.
    """
    found: list[Expressions] = []
    have = 0
    while have < count:
        candidates = min(_MOST_CANDIDATES, 2 * (count - have) + 16)
        part = _write(_draw_levels(candidates, grammar, generator), grammar)
        found.append(part)
        have += len(part.values)
    lengths = torch.cat([part.lengths for part in found])[:count]
    tokens = torch.cat([part.tokens for part in found])[:count, : int(lengths.max())]
    nesting = torch.cat([part.nesting for part in found])[:count]
    return Expressions(tokens, lengths, nesting, torch.cat([p.values for p in found])[:count])


def spell(tokens: Tensor) -> str:
    """An expression (N,) as text; padding is left out."""
    words = []
    for token in tokens.tolist():
        if token == CLOSE:
            words.append("]")
        elif token >= FIRST_OPERATOR:
            words.append(f"[{OPERATORS[token - FIRST_OPERATOR]}")
        elif token != PAD:
            words.append(str(token - FIRST_DIGIT))
    return " ".join(words)


def _draw_levels(count: int, grammar: Grammar, generator: torch.Generator) -> list[_Level]:
    """Trees whose roots are operators, the root's level first."""
    parent = torch.arange(count)
    operator = torch.ones(count, dtype=torch.bool)
    levels = []
    for depth in range(1, grammar.max_depth + 1):
        if depth > 1:
            chance = OPERATOR_SHARE if depth < grammar.max_depth else 0.0
            operator = torch.rand(len(parent), generator=generator) < chance
        digits = torch.randint(DIGITS, (len(parent),), generator=generator)
        numbers = torch.randint(len(OPERATORS), (len(parent),), generator=generator)
        levels.append(_Level(operator, torch.where(operator, numbers, digits), parent))
        nodes = operator.nonzero()[:, 0]
        arguments = torch.randint(2, grammar.max_arguments + 1, (len(nodes),), generator=generator)
        parent = nodes.repeat_interleave(arguments)
        if not len(parent):
            break
    return levels


def _write(levels: list[_Level], grammar: Grammar) -> Expressions:
    """Evaluate and measure trees from the leaves up, write those that fit from the root down."""
    values, sizes, nestings = [], [], []
    value = size = nesting = torch.empty(0, dtype=torch.long)
    for index in reversed(range(len(levels))):
        level, below = levels[index], levels[index + 1 : index + 2]
        new_value = level.symbol.clone()
        new_size, new_nesting = torch.ones_like(new_value), torch.zeros_like(new_value)
        if below:
            parent, nodes = below[0].parent, level.operator
            new_value[nodes] = _apply(level, parent, value)
            new_size[nodes] = 2 + torch.zeros_like(new_size).index_add(0, parent, size)[nodes]
            deepest = new_nesting.scatter_reduce(0, parent, nesting, "amax")
            new_nesting[nodes] = 1 + deepest[nodes]
        value, size, nesting = new_value, new_size, new_nesting
        values.append(value)
        sizes.append(size)
        nestings.append(nesting)
    fits = (size >= grammar.min_length) & (size <= grammar.max_length)
    tokens = _tokens(levels, sizes[::-1], fits, grammar.max_length)
    return Expressions(tokens, size[fits], nesting[fits], value[fits])


def _apply(level: _Level, parent: Tensor, arguments: Tensor) -> Tensor:
    """Values of a level's operators from the (n,) values of the nodes below and their parents."""
    counts = parent.bincount(minlength=len(level.operator))
    first = (counts.cumsum(0) - counts)[level.operator]
    total = torch.zeros_like(counts).index_add(0, parent, arguments)[level.operator]
    counts = counts[level.operator]
    ordered = arguments[(parent * DIGITS + arguments).argsort()]
    middle = ordered[first + (counts - 1) // 2] + ordered[first + counts // 2]
    results = torch.stack(
        [ordered[first + counts - 1], ordered[first], middle // 2, total % DIGITS]
    )
    return results.gather(0, level.symbol[level.operator][None])[0]


def _tokens(levels: list[_Level], sizes: list[Tensor], fits: Tensor, width: int) -> Tensor:
    """(kept, width) ids of the trees that fit."""
    tokens = torch.full((int(fits.sum()), width), PAD)
    row = torch.where(fits, fits.cumsum(0) - 1, -1)
    place = torch.zeros_like(row)
    for depth, (level, size) in enumerate(zip(levels, sizes, strict=True)):
        if depth:
            # Arguments stand one after the other, behind the token of their operator.
            before = size.cumsum(0) - size
            first = torch.ones_like(level.parent, dtype=torch.bool)
            first[1:] = level.parent[1:] != level.parent[:-1]
            base = before[first].repeat_interleave(first.cumsum(0).bincount()[1:])
            place = place[level.parent] + 1 + before - base
            row = row[level.parent]
        kept = row >= 0
        start = torch.where(level.operator, FIRST_OPERATOR, FIRST_DIGIT)
        tokens[row[kept], place[kept]] = (start + level.symbol)[kept]
        closed = kept & level.operator
        tokens[row[closed], (place + size - 1)[closed]] = CLOSE
    return tokens
