"""The task ``test-time-regression-trained``: the same problems, with trained projections."""

from __future__ import annotations

from torch import nn

from cab import Metric, Pattern, Recipe, Reference, Scale, Slots, TaskInfo, register_task
from tasks.problems.regression_task import RegressionTask, Setting
from tasks.test_time_regression.model import Projected

SETTINGS = {
    Scale.TINY: Setting(128, 32, 8, 64, problems=32, steps=60, batch_size=4),
    Scale.SMALL: Setting(1024, 256, 16, 256, problems=32, steps=400, batch_size=2),
    Scale.BASE: Setting(4096, 512, 64, 1024, problems=64, steps=2000, batch_size=4),
}

_HEADS = {Scale.TINY: 2, Scale.SMALL: 4, Scale.BASE: 4}


@register_task(
    TaskInfo(
        id="test-time-regression-trained",
        title="Test-time regression, trained",
        description=(
            "Predict y = W_s x from the (x, y) pairs in context, where the map W_s changes from "
            "segment to segment, by one layer with trained projections of queries, keys, values "
            "and outputs: 4 heads, 2 at tiny. Sizes and test problems are those of "
            "test-time-regression. Causal self: each target of the stream from the pairs before "
            "it. Cross: fresh queries from all pairs."
        ),
        backbones={
            Pattern.CAUSAL_SELF: "projected",
            Pattern.NONCAUSAL_CROSS: "projected",
            Pattern.CAUSAL_CROSS: "projected",
        },
        metrics=(
            Metric(
                name="mse",
                unit="1",
                higher_is_better=False,
                help="squared error per output dimension; predicting zero scores 1",
            ),
            Metric(
                name="mse_first_segment",
                unit="1",
                higher_is_better=False,
                help="in the first segment of a stream, where there is one map yet",
                headline=False,
            ),
            Metric(
                name="mse_early",
                unit="1",
                higher_is_better=False,
                help="in the first quarter of every segment of a stream after the first",
                headline=False,
            ),
            Metric(
                name="mse_late",
                unit="1",
                higher_is_better=False,
                help="in the last quarter of every segment of a stream after the first",
                headline=False,
            ),
        ),
        references=(
            Reference("zero", metric="mse", help="predicting zero; 1 in expectation"),
            *tuple(
                Reference(f"{name}{place}", metric=metric, help=f"{what}{where}")
                for name, what in (
                    ("oracle-least-squares", "least squares on the pairs of the query's segment"),
                    ("mesa", "ridge regression on all pairs seen (ridge 0.01)"),
                )
                for place, metric, where in (
                    ("", "mse", ""),
                    ("-first-segment", "mse_first_segment", ", in the first segment"),
                    ("-early", "mse_early", ", early in segments after the first"),
                    ("-late", "mse_late", ", late in segments after the first"),
                )
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="generated",
        paper="Zuo et al., Local Linear Attention (test-time regression experiment)",
        url="https://arxiv.org/abs/2510.01450",
        probe=True,
        fresh_evaluation=True,
    )
)
class TestTimeRegressionTrained(RegressionTask):
    """Regression in context by one layer of attention, without feed-forward, norm or residual.

    With the control ``none`` a causal self slot gives a linear map of the previous target, and a
    cross slot predicts zero.
    """

    __test__ = False  # its name looks like a test case to pytest

    settings = SETTINGS

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return Recipe(
            steps=self.setting.steps,
            batch_size=self.setting.batch_size,
            learning_rate=5e-3 if self.scale is Scale.BASE else 2e-2,
            warmup_steps=20,
            weight_decay=0.0,
        )

    def build(self, slots: Slots) -> nn.Module:
        """One layer."""
        setting = self.setting
        return Projected(slots, self.pattern, setting.dim, _HEADS[self.scale], setting.length)
