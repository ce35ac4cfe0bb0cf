"""Digits from pixels, read out by efficient probing."""

from __future__ import annotations

from cab import Metric, Pattern, Reference, Scale, TaskInfo, register_task
from tasks.pixel_classification.task import PixelClassification
from tasks.pooled_classification.probed import ReadByProbe


@register_task(
    TaskInfo(
        id="pixel-classification-ep",
        title="Classification of digits from pixels, by efficient probing",
        description=(
            "The task pixel-classification, its encoder trained through efficient probing - "
            "learned queries that pool the tokens - instead of their mean."
        ),
        backbones={Pattern.NONCAUSAL_SELF: "pooled-encoder"},
        metrics=(
            Metric("accuracy", "1", higher_is_better=True, help="Share of correct digits."),
            Metric(
                "accuracy_mean",
                "1",
                higher_is_better=True,
                help="By mean pooling of the trained encoder's tokens.",
                headline=False,
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="mnist-5k",
        paper="Psomas et al., Attention, Please! Revisiting Attentive Probing Through the Lens of "
        "Efficiency",
        url="https://arxiv.org/abs/2506.10178",
        probe=True,
        references=(
            Reference(
                "ridge-regression",
                metric="accuracy",
                help="Ridge regression on the pixels of eight shifts of every training digit.",
            ),
            Reference("chance", metric="accuracy", help="A digit named at random."),
        ),
    )
)
class ProbedPixelClassification(ReadByProbe, PixelClassification):
    """Digits, one token a pixel, the tokens pooled by learned queries."""
