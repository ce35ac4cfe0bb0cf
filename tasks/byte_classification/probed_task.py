"""Sources of passages from bytes, read out by efficient probing."""

from __future__ import annotations

from cab import Metric, Pattern, Reference, Scale, TaskInfo, register_task
from tasks.byte_classification.task import ByteClassification
from tasks.pooled_classification.probed import ReadByProbe


@register_task(
    TaskInfo(
        id="byte-classification-ep",
        title="Classification of text from bytes, by efficient probing",
        description=(
            "The task byte-classification, its encoder trained through efficient probing - "
            "learned queries that pool the tokens - instead of their mean. At scale small two "
            "seeds do not tell softmax and none apart."
        ),
        backbones={Pattern.NONCAUSAL_SELF: "pooled-encoder"},
        metrics=(
            Metric("accuracy", "1", higher_is_better=True, help="Share of correct sources."),
            Metric(
                "accuracy_mean",
                "1",
                higher_is_better=True,
                help="By mean pooling of the trained encoder's tokens.",
                headline=False,
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="embedded-texts",
        paper="Psomas et al., Attention, Please! Revisiting Attentive Probing Through the Lens of "
        "Efficiency",
        url="https://arxiv.org/abs/2506.10178",
        probe=True,
        references=(
            Reference(
                "naive-bayes-bigrams",
                metric="accuracy",
                help="Naive Bayes on the pairs of neighbouring bytes.",
            ),
            Reference(
                "naive-bayes-bytes", metric="accuracy", help="Naive Bayes on the bytes alone."
            ),
            Reference("chance", metric="accuracy", help="A source named at random."),
        ),
    )
)
class ProbedByteClassification(ReadByProbe, ByteClassification):
    """Sources of passages, the tokens pooled by learned queries."""
