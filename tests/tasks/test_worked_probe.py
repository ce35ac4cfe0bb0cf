"""The worked example of a probe: a folder of one small file that the suite takes like its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from cab import Pattern, Scale, Slots
from cab.registries import TASKS
from runners.planner import Request, make_plan
from tests.runners.guarded import model_of, run_guarded

FOLDER = Path(__file__).parent / "worked_probe"
TARGET = f"{FOLDER / 'task.py'}:MarkedSymbol"


@pytest.fixture(scope="module")
def task():
    return TASKS.load(TASKS.resolve(TARGET))(Pattern.CAUSAL_SELF, Scale.TINY)


def test_it_fits_on_a_page() -> None:
    assert sum(len(path.read_text().splitlines()) for path in FOLDER.glob("*.py")) <= 120


def test_the_marked_symbol_is_the_target(task) -> None:
    batch = task.draw(50, 9, torch.Generator().manual_seed(0))
    for tokens, target in zip(batch["tokens"].tolist(), batch["targets"].tolist(), strict=True):
        assert tokens[-1] == 32
        assert [token - 16 for token in tokens[:-1] if token >= 16] == [target]


def test_it_says_what_it_declares(task) -> None:
    model = task.build(Slots(task.pattern, SoftmaxAttention, SoftmaxAttention)).eval()
    with torch.no_grad():
        assert set(task.evaluate(model, "test", 0)) == {m.name for m in task.info.metrics}
    assert set(task.references(0)) == {reference.name for reference in task.info.references}


def test_it_tells_attention_from_none(task) -> None:
    """A whole tiny cell, held to the contract of causal slots as well."""
    scores = {
        attention: run_guarded(task, *model_of(task, attention))[1]["accuracy"]
        for attention in (SoftmaxAttention, NoAttention)
    }
    assert scores[SoftmaxAttention] > 0.95
    assert scores[NoAttention] == pytest.approx(task.references(0)["chance"], abs=0.08)


def test_it_is_planned_by_its_target() -> None:
    request = Request(
        attentions=["softmax"], patterns=["causal-self"], tasks=[TARGET], scale="tiny", seeds=1,
        measures=("quality",),
    )  # fmt: skip
    cells = make_plan(request, machine="test").cells
    assert {cell.task for cell in cells} == {"marked-symbol"}
