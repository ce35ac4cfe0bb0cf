"""ListOps: the value of a nested list of operations (Long Range Arena; Nangia and Bowman 2018).

The grammar is Long Range Arena's at every scale; scale ``base`` has its sizes as well, ten levels,
ten arguments and about 500 to 2000 tokens. Scale small shortens trees to four levels, so three
nested operators, and 64 tokens: a short run learns there which digits stand under the root, and
begins to use the brackets.

Positions start as sharp sinusoids and attention as likeness, for every mechanism alike; Long Range
Arena's own models have neither. Its readout is a class token or, as here, the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cab import (
    Artifact,
    Batch,
    GeneratedTask,
    Metric,
    Pattern,
    Recipe,
    Reference,
    Scale,
    Slots,
    TaskInfo,
    register_task,
    seeds,
)
from cab.task_contract import Split
from tasks.artifacts import pictures
from tasks.backbones.pooled_encoder import Logits, TokenClassifier, valid_tokens
from tasks.evaluation import parts, share
from tasks.listops.expressions import (
    DIGITS,
    OPERATOR_SHARE,
    OPERATORS,
    TOKENS,
    Expressions,
    Grammar,
    draw_expressions,
    spell,
)
from tasks.pooled_classification.task import PooledClassification


@dataclass(frozen=True)
class _Setting:
    grammar: Grammar
    dim: int
    layers: int
    heads: int
    expressions: int
    """Evaluated, per split."""


_SETTINGS = {
    Scale.TINY: _Setting(Grammar(3, 5, 4, 24), 32, 1, 4, expressions=512),
    Scale.SMALL: _Setting(Grammar(4, 6, 7, 40), 64, 2, 4, expressions=2048),
    Scale.BASE: _Setting(Grammar(10, 10, 512, 2048), 256, 6, 8, expressions=2000),
}

_RECIPES = {
    Scale.TINY: Recipe(steps=100, batch_size=32, learning_rate=5e-3),
    Scale.SMALL: Recipe(steps=400, batch_size=64, learning_rate=3e-3),
    Scale.BASE: Recipe(
        steps=5000,
        batch_size=32,
        learning_rate=5e-4,
        warmup_steps=500,
        evaluations=10,
        precision="bfloat16",
    ),
}

_PRIOR_DRAWS = 4096
_QUARTERS, _DEPTHS = 4, 3
_SHOWN = 12


@register_task(
    TaskInfo(
        id="listops",
        title="ListOps",
        description=(
            "The value, 0 to 9, of a bracketed expression of MAX, MIN, MED (median) and SUM_MOD "
            "(sum modulo 10) over digits. Grammar of Long Range Arena: a node is an operator with "
            "probability 1/4, with 2 to 10 arguments. At scale small up to three nested operators "
            "and 8 to 64 tokens, at base Long Range Arena's ten levels and 512 to 2048 tokens. "
            "Pooled by the mean."
        ),
        backbones={Pattern.NONCAUSAL_SELF: "pooled-encoder"},
        metrics=(
            Metric("accuracy", "1", higher_is_better=True, help="Share of correct values."),
            Metric(
                "accuracy_ep",
                "1",
                higher_is_better=True,
                help="By an efficient probe of the trained encoder's tokens.",
                headline=False,
            ),
            *(
                Metric(
                    f"accuracy_{operator}",
                    "1",
                    higher_is_better=True,
                    help="Of expressions with this operator at the root.",
                    headline=False,
                )
                for operator in ("max", "min", "med", "sum_mod")
            ),
            *(
                Metric(
                    f"accuracy_depth_{depth}",
                    "1",
                    higher_is_better=True,
                    help="Of expressions with as many nested operators.",
                    headline=False,
                )
                for depth in (1, 2, 3)
            ),
            Metric(
                "accuracy_deeper",
                "1",
                higher_is_better=True,
                help="Of expressions with more than three nested operators.",
                headline=False,
            ),
            *(
                Metric(
                    f"accuracy_length_{quarter}",
                    "1",
                    higher_is_better=True,
                    help="Of expressions in one quarter of the scale's range of lengths, the "
                    "shortest first.",
                    headline=False,
                )
                for quarter in (1, 2, 3, 4)
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="generated",
        paper="Tay et al., Long Range Arena: A Benchmark for Efficient Transformers",
        url="https://arxiv.org/abs/2011.04006",
        probe=True,
        references=(
            Reference(
                "evaluator",
                metric="accuracy",
                help="The expression evaluated: every value can be told.",
            ),
            Reference(
                "root-operator",
                metric="accuracy",
                help="The commonest value of expressions with the same root operator.",
            ),
            Reference(
                "majority-class", metric="accuracy", help="The commonest value of all expressions."
            ),
        ),
    )
)
class ListOps(PooledClassification, GeneratedTask):
    """Evaluation of nested lists, the tokens pooled."""

    classes = tuple(map(str, range(DIGITS)))

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        self.setting = _SETTINGS[scale]
        if scale is Scale.BASE:
            self.evaluation_batch = 32

    @property
    def problem_settings(self) -> object:
        """See `cab.GeneratedTask.problem_settings`."""
        return OPERATOR_SHARE, self.setting.grammar, self.setting.expressions

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return _RECIPES[self.scale]

    def length(self) -> tuple[int, int]:
        """See `cab.Task.length`."""
        return self.setting.grammar.max_length, self.setting.grammar.max_length

    def build(self, slots: Slots) -> nn.Module:
        """See `cab.Task.build`."""
        return TokenClassifier(
            slots,
            tokens=TOKENS,
            classes=DIGITS,
            length=self.setting.grammar.max_length,
            dim=self.setting.dim,
            heads=self.setting.heads,
            layers=self.setting.layers,
        )

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Fresh expressions, padded to the longest of them."""
        return _batch(draw_expressions(self.recipe.batch_size, self.setting.grammar, generator))

    def classify(self, model: nn.Module, batch: Batch) -> Logits:
        """See `PooledClassification.classify`."""
        tokens = batch["tokens"][:, : int(batch["lengths"].max())]
        return model(tokens, valid_tokens(batch["lengths"], tokens.shape[1]))

    def examples(self, split: Split, seed: int) -> Batch:
        """See `PooledClassification.examples`."""
        return _batch(self.expressions(split, seed))

    def expressions(self, split: Split, seed: int) -> Expressions:
        """The evaluated expressions of a split."""
        generator = seeds.evaluation(seed, split)
        return draw_expressions(self.setting.expressions, self.setting.grammar, generator)

    def groups(self, examples: Batch) -> dict[str, Tensor]:
        """By root operator, by nested operators and by quarter of the range of lengths."""
        grammar, nesting = self.setting.grammar, examples["nesting"]
        members = {
            operator.lower(): examples["roots"] == number
            for number, operator in enumerate(OPERATORS)
        }
        members |= {f"depth_{depth}": nesting == depth for depth in range(1, _DEPTHS + 1)}
        members["deeper"] = nesting > _DEPTHS
        span = grammar.max_length - grammar.min_length + 1
        quarter = (examples["lengths"] - grammar.min_length) * _QUARTERS // span
        members |= {f"length_{i + 1}": quarter == i for i in range(_QUARTERS)}
        return members

    def references(self, seed: int) -> dict[str, float]:
        """Of the test expressions; the commonest values are those of other draws."""
        generator = seeds.generator(0, "statistics")
        drawn = draw_expressions(_PRIOR_DRAWS, self.setting.grammar, generator)
        counts = torch.zeros(len(OPERATORS), DIGITS)
        counts.index_put_((drawn.roots, drawn.values), torch.ones(_PRIOR_DRAWS), accumulate=True)
        test = self.expressions("test", seed)
        return {
            "evaluator": 1.0,
            "root-operator": share(counts.argmax(1)[test.roots] == test.values),
            "majority-class": share(counts.sum(0).argmax() == test.values),
        }

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """Expressions with their values, and which values are taken for which."""
        examples = next(parts(self.examples("test", seed), _SHOWN))
        predicted, _ = self.predictions(model, examples)
        lines = [
            f"{'right' if guess == value else 'wrong'}: {guess} for {spell(tokens)} = {value}"
            for guess, value, tokens in zip(
                predicted.tolist(), examples["labels"].tolist(), examples["tokens"], strict=True
            )
        ]
        caption = "Test expressions with their values, and what mean pooling says."
        return [
            pictures.text("expressions", caption, "\n".join(lines)),
            self.confusion(model, seed),
        ]


def _batch(drawn: Expressions) -> Batch:
    return {
        "tokens": drawn.tokens,
        "lengths": drawn.lengths,
        "labels": drawn.values,
        "nesting": drawn.nesting,
        "roots": drawn.roots,
    }
