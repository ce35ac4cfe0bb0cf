"""State tracking: the group, the chances of memoryless guesses, the scores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from cab import Attention, Pattern, Scale, Slots
from cab.errors import UsageError
from cab.registries import TASKS
from runners.training import evaluate, train
from tasks.state_tracking.problem import Case, draw_letters, track, track_last
from tasks.state_tracking.task import CASES, MOST_OBJECTS, StateTracking


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    # At these sizes a second thread costs more than it gives, most of all on a busy machine.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def task() -> StateTracking:
    return StateTracking(Pattern.CAUSAL_SELF, Scale.TINY)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model_of(task: StateTracking, attention: type[Attention] = SoftmaxAttention) -> nn.Module:
    torch.manual_seed(0)
    return task.build(Slots(task.pattern, attention, SoftmaxAttention)).eval()


# The problems


def test_alphabets() -> None:
    for case in CASES:
        alphabet = case.alphabet()
        count = {"swaps_4": 6, "swaps_8": 28, "swaps_16": 120}
        count |= {"words_3": 6, "words_5": 120}
        assert len(alphabet.unique(dim=0)) == len(alphabet) == count[case.name]
        assert torch.equal(alphabet.sort().values, torch.arange(case.objects).expand_as(alphabet))
        if case.kind == "swaps":
            assert (alphabet != torch.arange(case.objects)).sum(1).eq(2).all()


def test_letters_are_uniform() -> None:
    alphabet = Case("words", 3).alphabet()
    letters = draw_letters(1000, 12, alphabet, generator())
    share = torch.bincount(letters.flatten(), minlength=6) / 12000
    assert (share - 1 / 6).abs().max() < 4 * (1 / 6 / 12000) ** 0.5


def test_states_by_hand() -> None:
    alphabet = torch.tensor([[1, 0, 2], [0, 2, 1]])
    states = track(torch.tensor([[0, 1, 0]]), alphabet)
    assert states.tolist() == [[[1, 0, 2], [1, 2, 0], [2, 1, 0]]]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_states_are_products_of_permutation_matrices(case: Case) -> None:
    alphabet = case.alphabet()
    letters = draw_letters(3, 10, alphabet, generator())
    states = track(letters, alphabet)
    matrices = torch.eye(case.objects)[alphabet]
    for row in range(3):
        product = torch.eye(case.objects)
        for step in range(10):
            product = matrices[letters[row, step]] @ product
            assert torch.equal(product.argmax(-1), states[row, step])


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_objects_stay_with_the_stated_probability(case: Case) -> None:
    letters = draw_letters(4000, 6, case.alphabet(), generator())
    home = track(letters, case.alphabet()) == torch.arange(case.objects)
    for steps in (1, 2, 6):
        share = home[:, steps - 1].double().mean().item()
        # Positions of one state depend on each other, so words are what is counted.
        assert share == pytest.approx(case.stays(steps), abs=4 * 0.5 / 4000**0.5)


def test_a_window_is_exact_while_it_holds_the_whole_word() -> None:
    case = Case("swaps", 8)
    letters = draw_letters(2000, 9, case.alphabet(), generator())
    states = track(letters, case.alphabet())
    guess = track_last(letters, case.alphabet(), 3)
    right = (guess == states).double().mean((0, 2))
    assert right[:3].eq(1).all()
    for step in range(3, 9):
        assert right[step].item() == pytest.approx(case.stays(step - 2), abs=0.04)
    assert torch.equal(track_last(letters, case.alphabet(), 9), states)


# The task


def test_batches_are_a_function_of_the_seed(task: StateTracking) -> None:
    first, again = (task.training_batch(generator(3)) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    sizes = {task.training_batch(generator(seed))["states"].shape[-1] for seed in range(60)}
    assert sizes == {case.objects for case in CASES}


def test_cases_share_no_letter(task: StateTracking) -> None:
    ranges = []
    for index in range(len(CASES)):
        tokens = task.draw(index, 400, generator())[1]["tokens"]
        ranges.append((int(tokens.min()), int(tokens.max())))
    assert ranges == [(0, 5), (6, 33), (34, 153), (154, 159), (160, 279)]


@pytest.mark.parametrize("attention", [SoftmaxAttention, NoAttention])
def test_a_step_does_not_see_later_ones(task: StateTracking, attention: type[Attention]) -> None:
    model = model_of(task, attention)
    tokens = task.draw(1, 4, generator())[1]["tokens"]
    changed = torch.cat([tokens[:, :5], tokens[:, 5:].flip(0)], dim=1)
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    torch.testing.assert_close(before[:, :5], model(tokens[:, :5]), atol=1e-5, rtol=1e-5)
    assert torch.equal(before[:, 5:], after[:, 5:].flip(0)) is (attention is NoAttention)


class Follower(nn.Module):
    """Follows the state exactly, or only the last ``window`` letters."""

    def __init__(self, task: StateTracking, window: int) -> None:
        super().__init__()
        self.task, self.window = task, window
        self.parameter = nn.Parameter(torch.zeros(()))

    def forward(self, tokens: Tensor) -> Tensor:
        first = torch.tensor(self.task.first_letter)
        index = int((tokens.min() >= first).sum()) - 1
        alphabet = CASES[index].alphabet()
        states = track_last(tokens - first[index], alphabet, self.window)
        odds = torch.zeros(*tokens.shape, MOST_OBJECTS, MOST_OBJECTS)
        objects = alphabet.shape[1]
        odds[:, :, :objects, :objects] = nn.functional.one_hot(states, objects) * 100.0
        return odds.flatten(2)


def test_references_are_the_scores_of_their_predictors(task: StateTracking) -> None:
    values = task.references(0)
    assert {*values} == {reference.name for reference in task.info.references}
    assert values["tracker"] == 1
    for name, window in (("tracker", 8), ("memoryless", 1), ("last-two", 2), ("last-four", 4)):
        scores = task.evaluate(Follower(task, window), "test", 0)
        assert scores["accuracy"] == pytest.approx(values[name])
        assert scores["accuracy_step_1"] == 1
    expected = sum(case.stays(step) for case in CASES for step in range(8)) / 8 / len(CASES)
    assert values["memoryless"] == pytest.approx(expected, abs=0.02)
    assert values["chance"] < values["memoryless"] < values["last-two"] < values["last-four"]


def test_scores_are_the_declared_ones(task: StateTracking) -> None:
    scores = task.evaluate(Follower(task, 8), "validation", 0)
    declared = {metric.name for metric in task.info.metrics}
    later = {f"accuracy_step_{step}" for step in (16, 32, 64)}
    assert {*scores} == declared - later
    assert scores["cross_entropy"] < 1e-6


def _silent(**_: object) -> None:
    """A report to nobody."""


def test_a_tiny_cell_from_end_to_end(task: StateTracking) -> None:
    scores = []
    for _ in range(2):
        torch.manual_seed(0)
        slots = Slots(task.pattern, SoftmaxAttention, SoftmaxAttention)
        model = task.build(slots)
        train(task, model, slots.candidates, 0, _silent)
        scores.append(evaluate(task, model, "test", 0, task.recipe))
    assert scores[0] == scores[1]
    assert scores[0]["accuracy"] > task.references(0)["chance"] + 0.05
    assert task.artifacts(model, 0)[0].suffix == "vl.json"


def test_scale_base_builds() -> None:
    task = StateTracking(Pattern.CAUSAL_SELF, Scale.BASE)
    batch = task.draw(2, 2, generator())[1]
    assert torch.isfinite(task.loss(model_of(task), batch))


def test_the_record_is_read_without_an_import_and_no_folder_is_read(tmp_path: Path) -> None:
    record = next(info for info in TASKS.infos() if info.id == "state-tracking")
    assert record == StateTracking.info
    assert record.probe
    with pytest.raises(UsageError, match="generates"):
        StateTracking(Pattern.CAUSAL_SELF, Scale.TINY, tmp_path)
    hashes = {StateTracking(Pattern.CAUSAL_SELF, scale).data_hash for scale in record.scales}
    assert len(hashes) == 3
