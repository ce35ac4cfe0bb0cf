"""Whether maps point to the evidence, on maps that are known and on tasks that know it."""

import pytest
import torch

from cab import Attention, AttentionContext, AttentionSpec, Pattern, Scale
from cab.analysis import Evidence
from cab.registries import TASKS
from runners.analysis.calls import Call
from runners.analysis.evidence import CONTRASTED, PLAIN, contrast, evidence_scores
from runners.analysis.maps import mapped
from tests.runners.test_analysis import DIM, HEADS, slot

LENGTH, QUESTIONS = 12, 3


def cross_call(module, found, sharp=6.0, sink=None, length=LENGTH):
    """Questions that look for one key each, and even more for the sink where there is one."""
    keys = torch.eye(length).expand(2, HEADS, -1, -1)
    q = sharp * keys.gather(2, found[:, None, :, None].expand(-1, HEADS, -1, length))
    if sink is not None:
        q = q + 1.2 * sharp * keys[:, :, sink : sink + 1]
    return Call(module, q * length**0.5, keys, keys, None)


def softmax():
    return slot("softmax", Pattern.NONCAUSAL_CROSS)


def evidence(found, keys=LENGTH):
    return Evidence(torch.arange(found.shape[1]).expand_as(found), found, keys)


FOUND = torch.tensor([[1, 5, 9], [2, 3, 11]])


def test_a_map_that_points_to_the_answer_scores_one():
    scores = evidence_scores(mapped([cross_call(softmax(), FOUND)]), evidence(FOUND))
    assert scores == {PLAIN: pytest.approx(1.0), CONTRASTED: pytest.approx(1.0)}


def test_an_even_map_scores_a_half():
    scores = evidence_scores(mapped([cross_call(softmax(), FOUND, sharp=0.0)]), evidence(FOUND))
    assert scores == {PLAIN: pytest.approx(0.5), CONTRASTED: pytest.approx(0.5)}


def test_a_sink_costs_the_map_and_not_the_contrast():
    maps = mapped([cross_call(softmax(), FOUND, sink=7)])
    scores = evidence_scores(maps, evidence(FOUND))
    assert scores[PLAIN] == pytest.approx(10 / 11)  # beaten by the sink alone
    assert scores[CONTRASTED] == pytest.approx(1.0)


def test_the_contrast_is_the_ratio_in_rows_of_sum_one():
    specific = torch.tensor([0.6, 0.4, 0.0, 0.0])
    generic = torch.tensor([0.75, 0.0, 0.25, 0.0])
    want = torch.tensor([0.6, 1.6, 0.0, 0.0])
    torch.testing.assert_close(contrast(specific, generic), want / want.sum())
    even = torch.full((4,), 0.25)
    torch.testing.assert_close(contrast(specific, even), specific)
    assert contrast(-specific, even).tolist() == [0.0] * 4


class Backwards(Attention):
    """Every token attends to the one before it, whatever it asks for."""

    def forward(self, q, k, v, context=None):
        return torch.cat([v[:, :, :1], v[:, :, :-1]], 2)


def test_only_what_a_question_sees_counts():
    module = Backwards(AttentionSpec(Pattern.CAUSAL_SELF, HEADS, DIM))
    q = torch.randn(2, HEADS, LENGTH, DIM)
    asked, found = torch.tensor([[5, 8]] * 2), torch.tensor([[4, 2]] * 2)
    call = Call(module, q, q, q, None)
    scores = evidence_scores(mapped([call]), Evidence(asked, found, LENGTH))
    # The first points to its answer; the second beats none, ties with all but the one it points to.
    assert scores[PLAIN] == pytest.approx((1 + 0.5 * 7 / 8) / 2)
    mask = torch.ones(2, LENGTH, dtype=torch.bool)
    mask[:, 7] = False  # where the second points to: not a key
    masked = Call(module, q, q, q, AttentionContext(key_mask=mask))
    scores = evidence_scores([(masked, mapped([call])[0][1])], Evidence(asked, found, LENGTH))
    assert scores[PLAIN] == pytest.approx((1 + 0.5) / 2)


def test_slots_of_other_lengths_and_other_batches_say_nothing():
    maps = mapped([cross_call(softmax(), FOUND)])
    assert evidence_scores(maps, evidence(FOUND, keys=LENGTH + 1)) == {}
    assert evidence_scores(maps, evidence(FOUND[:1])) == {}
    assert evidence_scores([], evidence(FOUND)) == {}


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("passkey", Pattern.CAUSAL_SELF),
        ("associative-recall", Pattern.CAUSAL_SELF),
        ("associative-recall", Pattern.NONCAUSAL_CROSS),
    ],
)
def test_tasks_on_recall_know_where_the_answer_is(name, pattern):
    task = TASKS.load(TASKS.resolve(name))(pattern, Scale.TINY)
    batch = task.training_batch(torch.Generator().manual_seed(0))
    known = task.evidence(batch)
    values = batch["tokens"] if "tokens" in batch else batch["values"]
    first = int(values.gather(1, known.found).min() - batch["targets"].min())
    assert torch.equal(values.gather(1, known.found) - first, batch["targets"])
    assert known.keys == values.shape[1]
    asking = batch["tokens"] if "tokens" in batch else batch["asked"]
    assert known.asked.max() < asking.shape[1]
    assert known.asked.shape == known.found.shape == batch["targets"].shape
