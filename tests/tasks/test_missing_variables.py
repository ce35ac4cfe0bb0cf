"""Missing variables: what is dropped, the ridge reference, masks in the slots, one tiny cell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from cab import Attention, Batch, Pattern, Scale, Slots
from cab.errors import UsageError
from runners.training import train
from tasks.forecasting.data import Series
from tasks.missing_variables.ridge import RidgeForecaster
from tasks.missing_variables.task import MASKS, MissingVariables, scores
from tasks.missing_variables.windows import SHARES, drop, masked_windows, missing_count

PATTERNS = MissingVariables.info.patterns


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    # At these sizes a second thread costs more than it gives, most of all on a busy machine.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=PATTERNS)
def tiny(request: pytest.FixtureRequest) -> MissingVariables:
    return MissingVariables(request.param, Scale.TINY)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model_of(task: MissingVariables, attention: type[Attention] = SoftmaxAttention) -> nn.Module:
    torch.manual_seed(0)
    return task.build(Slots(task.pattern, attention, SoftmaxAttention)).eval()


def test_the_number_dropped_is_exact_and_every_variable_is_dropped_alike() -> None:
    counts = torch.tensor([0, 3, 10]).repeat(2000)
    present = drop(counts, 10, generator())
    assert torch.equal((~present).sum(1), counts)
    of_three = (~present[1::3]).double().mean(0)
    torch.testing.assert_close(of_three, torch.full((10,), 0.3).double(), atol=0.04, rtol=0)


def test_counts_of_the_shares() -> None:
    assert [missing_count(percent, 55) for percent in SHARES] == [14, 28, 41, 50]
    assert [missing_count(percent, 24) for percent in SHARES] == [6, 12, 18, 22]


def test_a_missing_history_is_gone_and_its_future_is_asked_for() -> None:
    hour = torch.arange(30, dtype=torch.float32)
    series = Series(1 + hour[:, None] + 100 * torch.arange(3), hour[:, None])
    present = torch.tensor([[True, False, True], [False, True, True]])
    batch = masked_windows(series, torch.tensor([0, 5]), present, 4, 2)
    assert torch.equal(batch["history"][1, 1], 101 + torch.arange(5.0, 9.0))
    assert not batch["history"][~present].any()
    assert torch.equal(batch["target"][0, 1], torch.tensor([105.0, 106.0]))
    assert torch.equal(batch["calendar"], torch.tensor([[4.0], [9.0]]))


def test_questions_have_the_shares_and_are_the_same_for_both_patterns() -> None:
    first, second = (MissingVariables(p, Scale.TINY).questions("test", 0) for p in PATTERNS)
    for percent in SHARES:
        assert len(first[percent]) == MASKS
        whole = torch.cat([batch["present"] for batch in first[percent]])
        assert len(whole) == 128
        assert ((~whole).sum(1) == missing_count(percent, 55)).all()
        for one, other in zip(first[percent], second[percent], strict=True):
            assert all(torch.equal(one[name], other[name]) for name in one)


def mixture(hours: int) -> Series:
    """Two independent white sources, and a third variable that is their sum an hour later."""
    source = torch.randn(hours, 2, generator=generator(5))
    late = source.sum(1).roll(1)
    return Series(torch.cat([source, late[:, None]], dim=1), torch.zeros(hours, 1))


@pytest.mark.parametrize(
    ("present", "error"), [((1, 1, 0), 0.0), ((1, 0, 0), 1.0), ((0, 0, 1), 2.0)]
)
def test_ridge_knows_what_a_linear_predictor_can(present: tuple[int, ...], error: float) -> None:
    train_series, test_series = mixture(20_000), mixture(20_400)
    ridge = RidgeForecaster(train_series, 3, 1, penalty=1e-6)
    starts = torch.arange(20_100, 20_390)
    mask = torch.tensor([present]).bool().expand(len(starts), -1)
    batch = masked_windows(test_series, starts, mask, 3, 1)
    found = (ridge(batch) - batch["target"]).square()[:, 2].mean().item()
    assert found == pytest.approx(error, rel=0.25, abs=1e-3)


def test_ridge_is_ordinary_ridge_on_the_columns_present() -> None:
    series = Series(torch.randn(80, 3, generator=generator(1)), torch.randn(80, 2))
    ridge = RidgeForecaster(series, 4, 2, penalty=0.1)
    starts = torch.arange(75)
    mask = torch.tensor([[True, False, True]]).expand(75, -1)
    batch = masked_windows(series, starts, mask, 4, 2)
    columns = batch["history"][:, [0, 2]].flatten(1)
    x = torch.cat([columns, batch["calendar"], torch.ones(75, 1)], dim=1).double()
    penalty = 0.1 * 75 * torch.eye(x.shape[1]).double()
    penalty[-1, -1] = 0
    weights = torch.linalg.solve(x.T @ x + penalty, x.T @ batch["target"].double().flatten(1))
    torch.testing.assert_close(ridge(batch).flatten(1), x @ weights)
    mixed = {**batch, "present": drop(torch.arange(75) % 3, 3, generator())}
    with pytest.raises(ValueError, match="same variables"):
        ridge(mixed)


def test_references_are_ordered() -> None:
    found = MissingVariables(PATTERNS[0], Scale.TINY).references(0)
    assert set(found) == {reference.name for reference in MissingVariables.info.references}
    assert found["ridge"] < found["calendar"] < found["training-mean"]
    by_share = [found[f"ridge-{percent}"] for percent in SHARES]
    assert by_share == sorted(by_share)
    assert found["ridge"] == pytest.approx(sum(by_share) / 4)
    assert found["ridge-missing"] > found["ridge"]


def test_scores_of_a_predictor_that_is_wrong_where_variables_are_missing() -> None:
    asked = MissingVariables(PATTERNS[0], Scale.TINY).questions("validation", 0)

    def predict(batch: Batch) -> Tensor:
        return batch["target"] + 2.0 * (~batch["present"])[..., None]

    found = scores(predict, asked)
    assert found["mse_missing"] == pytest.approx(4.0, rel=1e-5)
    for percent in SHARES:
        share = missing_count(percent, 55) / 55
        assert found[f"mse_{percent}"] == pytest.approx(4 * share, rel=1e-5)


def test_metrics_are_those_declared(tiny: MissingVariables) -> None:
    with torch.no_grad():
        found = tiny.evaluate(model_of(tiny), "validation", 0)
    assert set(found) == {metric.name for metric in tiny.info.metrics}


def test_missing_histories_and_targets_are_not_read(tiny: MissingVariables) -> None:
    batch = tiny.training_batch(generator())
    model = model_of(tiny)
    with torch.no_grad():
        before = model(batch)
        changed = {**batch, "target": batch["target"] + 1}
        changed["history"] = torch.where(
            batch["present"][..., None], batch["history"], torch.tensor(7.0)
        )
        torch.testing.assert_close(model(changed), before, atol=1e-5, rtol=1e-5)


def test_without_attention_no_other_variable_matters(tiny: MissingVariables) -> None:
    batch = tiny.training_batch(generator())
    model = model_of(tiny, NoAttention)
    with torch.no_grad():
        before = model(batch)
        after = model({**batch, "history": batch["history"] + 1})
    assert torch.equal(before[~batch["present"]], after[~batch["present"]])


class Careless(SoftmaxAttention):
    """Softmax that ignores masks."""

    def forward(self, q, k, v, context=None):
        return super().forward(q, k, v, None)


def test_ignoring_the_mask_changes_the_forecast(tiny: MissingVariables) -> None:
    batch = tiny.training_batch(generator())
    with torch.no_grad():
        assert not torch.allclose(model_of(tiny)(batch), model_of(tiny, Careless)(batch))


def test_training_batches_are_a_function_of_the_seed(tiny: MissingVariables) -> None:
    first, again, other = (tiny.training_batch(generator(seed)) for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["history"], other["history"])
    assert set((~first["present"]).sum(1).tolist()) <= {14, 28, 41, 50}


def test_tiny_trains_and_needs_attention(tiny: MissingVariables) -> None:
    found = {}
    for attention in (SoftmaxAttention, NoAttention):
        torch.manual_seed(0)
        slots = Slots(tiny.pattern, attention, SoftmaxAttention)
        model = tiny.build(slots)
        train(tiny, model, slots.candidates, 0, lambda **_: None)
        with torch.no_grad():
            found[attention] = tiny.evaluate(model.eval(), "test", 0)["mse"]
    assert found[SoftmaxAttention] < found[NoAttention]


def test_a_picture_shows_variables_without_a_history(tiny: MissingVariables) -> None:
    with torch.no_grad():
        shown = tiny.artifacts(model_of(tiny), 0)
    assert [artifact.name for artifact in shown] == ["missing-90"]


def test_base_takes_a_step() -> None:
    base = MissingVariables(Pattern.NONCAUSAL_SELF, Scale.BASE)
    batch = {name: x[:2] for name, x in base.training_batch(generator()).items()}
    loss = base.loss(model_of(base), batch)
    loss.backward()
    assert loss.isfinite()


def test_hashes_and_folders(tmp_path: Path) -> None:
    hashes = {
        MissingVariables(PATTERNS[0], scale).data_hash for scale in MissingVariables.info.scales
    }
    assert len(hashes) == 3
    with pytest.raises(UsageError, match="data folder"):
        MissingVariables(PATTERNS[0], Scale.TINY, tmp_path)
