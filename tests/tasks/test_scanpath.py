"""Scanpath: the scenes and the searcher against their definition, scores, no leaks, a tiny cell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from cab import Attention, Pattern, Scale, Slots
from cab.errors import UsageError
from runners.training import train
from tasks.scanpath.scenes import (
    FORGETTING,
    FOUND,
    GIVE_UP,
    INHIBITION,
    NOTHING,
    SACCADE,
    Scenes,
    choices,
    draw_scanpaths,
    draw_scenes,
    policy_log_probabilities,
)
from tasks.scanpath.similarity import sequence_similarity
from tasks.scanpath.task import Scanpath, likelihoods, scanpath_batch

CC = Pattern.CAUSAL_CROSS


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    # At these sizes a second thread costs more than it gives, most of all on a busy machine.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny() -> Scanpath:
    return Scanpath(CC, Scale.TINY)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scenes_of(batch: int, count: int = 6, most: int = 8) -> Scenes:
    return draw_scenes(torch.full((batch,), count), most, generator())


def model_of(task: Scanpath, attention: type[Attention] = SoftmaxAttention) -> nn.Module:
    torch.manual_seed(0)
    return task.build(Slots(CC, attention, SoftmaxAttention)).eval()


def test_one_object_alone_fits_the_description() -> None:
    drawn = scenes_of(3000)
    fits = (drawn.colours == drawn.of_target(drawn.colours)) & (
        drawn.shapes == drawn.of_target(drawn.shapes)
    )
    fits &= drawn.present
    assert (fits.sum(1) == 1).all()
    assert torch.equal(fits.long().argmax(1), drawn.target)
    assert torch.equal(drawn.present.sum(1), torch.full((3000,), 6))


def test_scenes_are_uniform() -> None:
    drawn = scenes_of(4000)
    valid = drawn.present
    for feature, kinds in ((drawn.colours, 4), (drawn.shapes, 4), (drawn.sizes, 3)):
        share = feature[valid].bincount(minlength=kinds) / valid.sum()
        torch.testing.assert_close(share, torch.full((kinds,), 1 / kinds), atol=0.012, rtol=0)
    target = drawn.target.bincount(minlength=6) / 4000
    torch.testing.assert_close(target, torch.full((6,), 1 / 6), atol=0.025, rtol=0)
    places = drawn.places[valid]
    assert places.mean().item() == pytest.approx(0.5, abs=0.01)
    assert places.var().item() == pytest.approx(1 / 12, abs=0.003)


def test_probabilities_are_those_of_the_formula() -> None:
    drawn = scenes_of(1)
    path = torch.tensor([[2, 5, 2, 0]])
    found = policy_log_probabilities(drawn, path)[0]
    gaze, since = torch.tensor([0.5, 0.5]), {}
    for step, looked in enumerate([None, 2, 5, 2]):
        if looked is not None:
            since = {j: k + 1 for j, k in since.items()} | {looked: 1}
            gaze = drawn.places[0, looked]
        weights = []
        for j in range(6):
            match = 2.0 * (drawn.colours[0, j] == drawn.colours[0, drawn.target[0]])
            match = match + 1.0 * (drawn.shapes[0, j] == drawn.shapes[0, drawn.target[0]])
            away = (drawn.places[0, j] - gaze).square().sum() / (2 * SACCADE**2)
            back = INHIBITION * FORGETTING ** (since[j] - 1) if j in since else 0.0
            weights.append(float(match + 0.5 * drawn.sizes[0, j] - away - back))
        stop = 0.0 if looked is None else FOUND if looked == drawn.target[0] else GIVE_UP
        expected = (1 - stop) * torch.tensor(weights).double().softmax(0)
        torch.testing.assert_close(found[step, :6].exp(), expected, atol=1e-6, rtol=1e-5)
        assert not found[step, 6:8].exp().any(), "absent objects are never looked at"
        assert found[step, 8].exp().item() == pytest.approx(stop)


def test_drawn_paths_follow_the_probabilities() -> None:
    one = scenes_of(1)
    many = replace(
        one,
        **{
            name: getattr(one, name).expand(20_000, *getattr(one, name).shape[1:])
            for name in ("places", "colours", "shapes", "sizes", "present", "target")
        },
    )
    paths = draw_scanpaths(many, 3, generator())
    first = paths[:, 0].bincount(minlength=8).double() / len(paths)
    expected = policy_log_probabilities(one, paths[:1])[0, 0].exp()
    torch.testing.assert_close(first, expected[:8], atol=0.015, rtol=0)
    likely = int(first.argmax())
    after = paths[paths[:, 0] == likely][:, 1]
    share = after.where(after != NOTHING, 8).bincount(minlength=9).double() / len(after)
    expected = policy_log_probabilities(one, torch.tensor([[likely, 0]]))[0, 1].exp()
    torch.testing.assert_close(share, expected, atol=0.02, rtol=0)


def test_a_path_ends_once() -> None:
    paths = draw_scanpaths(scenes_of(500), 8, generator())
    ended = paths == NOTHING
    assert not ended[:, 0].any()
    assert (ended[:, 1:] >= ended[:, :-1]).all()
    chosen, taken = choices(paths, 8)
    fixations = (~ended).sum(1)
    assert torch.equal(taken.sum(1), (fixations + 1).clamp(max=8))
    assert torch.equal((chosen[taken] == 8).sum(), (fixations < 8).sum())
    again = (paths[:, :, None] == paths[:, None]) & ~ended[:, :, None]
    assert again.sum() > (~ended).sum(), "refixations occur"


def test_the_searchers_likelihood_is_its_entropy_and_nothing_is_better(tiny: Scanpath) -> None:
    found = tiny.references(0)
    assert set(found) == {reference.name for reference in tiny.info.references}
    assert found["searcher"] == pytest.approx(found["searcher-entropy"], abs=0.06)
    assert found["searcher"] < found["uniform"]
    asked = tiny.questions("test", 0)

    def blurred(scenes: Scenes, paths: Tensor) -> Tensor:
        exact = policy_log_probabilities(scenes, paths).exp()
        return (0.9 * exact + 0.1 / exact.shape[-1]).log()

    assert likelihoods(blurred, asked)["nll"] > found["searcher"]


def test_the_uniform_reference_is_that_of_equal_chances(tiny: Scanpath) -> None:
    def uniform(scenes: Scenes, paths: Tensor) -> Tensor:
        allowed = torch.cat([scenes.present, torch.ones_like(scenes.present[:, :1])], dim=1)
        allowed = allowed[:, None].repeat(1, paths.shape[1], 1)
        allowed[:, 0, -1] = False
        return allowed.double().log().log_softmax(-1)

    scored = likelihoods(uniform, tiny.questions("test", 0))["nll"]
    assert tiny.references(0)["uniform"] == pytest.approx(scored)


def test_edit_distance() -> None:
    n = NOTHING
    first = torch.tensor([[1, 2, 3, n], [1, 2, 3, n], [1, 2, n, n], [0, n, n, n]])
    second = torch.tensor([[1, 2, 3, n], [1, 3, n, n], [3, 4, 5, 6], [n, n, n, n]])
    expected = torch.tensor([1.0, 2 / 3, 0.0, 0.0]).double()
    torch.testing.assert_close(sequence_similarity(first, second), expected)
    torch.testing.assert_close(sequence_similarity(second, first), expected)


def test_the_seed_and_the_split_draw_the_scenes(tiny: Scanpath) -> None:
    model = model_of(tiny)
    with torch.no_grad():
        found = tiny.evaluate(model, "validation", 0)
        assert set(found) == {metric.name for metric in tiny.info.metrics}
        assert tiny.evaluate(model, "validation", 0) == found
        assert tiny.evaluate(model, "validation", 1) != found
    test, other = tiny.questions("test", 0), tiny.questions("validation", 0)
    assert not torch.equal(test["few"][0].places[:9], other["few"][0].places[:9])
    first, again = (tiny.training_batch(generator(3)) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_no_step_sees_its_own_fixation_or_a_later_one(tiny: Scanpath) -> None:
    scenes, paths = tiny.draw(torch.full((16,), 12), generator())
    model = model_of(tiny)
    with torch.no_grad():
        whole = model(scanpath_batch(scenes, paths))
        for step in range(paths.shape[1]):
            changed = paths.clone()
            changed[:, step:] = 5
            cut = scanpath_batch(scenes, changed[:, : step + 1])
            torch.testing.assert_close(model(cut)[:, step], whole[:, step], atol=1e-5, rtol=1e-5)


def test_absent_objects_have_no_part(tiny: Scanpath) -> None:
    scenes, paths = tiny.draw(torch.full((16,), 4), generator())
    model = model_of(tiny)
    batch = scanpath_batch(scenes, paths)
    changed = torch.where(scenes.present[..., None], batch["features"], torch.tensor(3.0))
    with torch.no_grad():
        logits = model(batch)
        torch.testing.assert_close(model({**batch, "features": changed}), logits)
    assert logits[..., 4:-1].isneginf().all()
    assert logits[:, 0, -1].isneginf().all()
    assert not logits[:, 1:, -1].any()


def test_without_attention_the_gaze_is_not_known(tiny: Scanpath) -> None:
    """Where the object looked at last lies does not matter, but to the pointer at it itself."""
    scenes, paths = tiny.draw(torch.full((16,), 12), generator())
    paths = paths.where(paths != NOTHING, 1)
    last = paths[:, 3]
    moved = scenes.places.clone()
    moved[torch.arange(16), last] = 1 - moved[torch.arange(16), last]
    others = torch.arange(12) != last[:, None]
    for attention, same in ((NoAttention, True), (SoftmaxAttention, False)):
        model = model_of(tiny, attention)
        with torch.no_grad():
            before = model(scanpath_batch(scenes, paths))[:, 4, :12]
            after = model(scanpath_batch(replace(scenes, places=moved), paths))[:, 4, :12]
        assert torch.allclose(before[others], after[others], atol=1e-6) is same


def test_imagined_paths_are_drawn_from_the_model(tiny: Scanpath) -> None:
    class Repeat(nn.Module):
        """Looks at the object after the last one; stops after three."""

        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(()))

        def forward(self, batch):
            paths = batch["paths"]
            logits = torch.full((*paths.shape, 13), -torch.inf)
            for step in range(paths.shape[1]):
                logits[:, step, step if step < 3 else 12] = 0.0
            return logits

    scenes, _ = tiny.draw(torch.full((5,), 12), generator())
    drawn = tiny.imagine(Repeat(), scenes, generator())
    assert torch.equal(drawn, torch.tensor([0, 1, 2] + 5 * [NOTHING]).expand(5, -1))


def test_tiny_trains(tiny: Scanpath) -> None:
    """Above chance; the gaze is found by more steps than tiny has."""
    torch.manual_seed(0)
    slots = Slots(CC, SoftmaxAttention, SoftmaxAttention)
    model = tiny.build(slots)
    train(tiny, model, slots.candidates, 0, lambda **_: None)
    with torch.no_grad():
        found = tiny.evaluate(model.eval(), "test", 0)["nll"]
    bounds = tiny.references(0)
    assert bounds["searcher"] < found < bounds["uniform"] - 0.1


def test_the_picture_shows_scenes(tiny: Scanpath) -> None:
    with torch.no_grad():
        shown = tiny.artifacts(model_of(tiny), 0)
    assert [artifact.name for artifact in shown] == ["scanpaths"]


def test_base_takes_a_step() -> None:
    base = Scanpath(CC, Scale.BASE)
    batch = {name: x[:4] for name, x in base.training_batch(generator()).items()}
    loss = base.loss(model_of(base), batch)
    loss.backward()
    assert loss.isfinite()


def test_hashes_and_folders(tiny: Scanpath, tmp_path: Path) -> None:
    assert tiny.data_hash != Scanpath(CC, Scale.SMALL).data_hash
    with pytest.raises(UsageError, match="generates"):
        Scanpath(CC, Scale.TINY, tmp_path)
