"""ListOps, read out by efficient probing."""

from __future__ import annotations

from torch import Tensor

from cab import Batch, Metric, Pattern, Reference, Scale, TaskInfo, register_task
from tasks.listops.task import ListOps
from tasks.pooled_classification.probed import ReadByProbe


@register_task(
    TaskInfo(
        id="listops-ep",
        title="ListOps, by efficient probing",
        description=(
            "The task listops, its encoder trained through efficient probing - learned queries "
            "that pool the tokens - instead of their mean."
        ),
        backbones={Pattern.NONCAUSAL_SELF: "pooled-encoder"},
        metrics=(
            Metric("accuracy", "1", higher_is_better=True, help="Share of correct values."),
            Metric(
                "accuracy_mean",
                "1",
                higher_is_better=True,
                help="By mean pooling of the trained encoder's tokens.",
                headline=False,
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="generated",
        paper="Psomas et al., Attention, Please! Revisiting Attentive Probing Through the Lens of "
        "Efficiency",
        url="https://arxiv.org/abs/2506.10178",
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
class ProbedListOps(ReadByProbe, ListOps):
    """Evaluation of nested lists, the tokens pooled by learned queries."""

    def groups(self, examples: Batch) -> dict[str, Tensor]:
        """None: they are reported with mean pooling."""
        return {}
