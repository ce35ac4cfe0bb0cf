"""Summarisation of docstrings: data, splits, and what the candidates' slots are."""

from __future__ import annotations

import pytest
import torch

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from cab import Pattern, Scale, Slots
from tasks.data.embedded import SPLITS, dataset
from tasks.summarization.anonymised_words import AnonymisedWords
from tasks.summarization.docstring_task import TARGET_WORDS, SummarizationDocstrings
from tasks.summarization.docstrings import DATASET, FIELD, read_docstrings
from tasks.summarization.model import Summarizer
from tasks.summarization.pairs import Splits
from tasks.summarization.vocabulary import END, PADDING, UNKNOWN
from tasks.summarization.words import words

PATTERNS = SummarizationDocstrings.info.patterns


@pytest.fixture(scope="module")
def splits() -> Splits:
    return read_docstrings(source_words=32, target_words=TARGET_WORDS)


@pytest.fixture(scope="module")
def task() -> SummarizationDocstrings:
    return SummarizationDocstrings(Pattern.NONCAUSAL_SELF, Scale.TINY)


@pytest.fixture(scope="module")
def read(task: SummarizationDocstrings) -> AnonymisedWords:
    assert isinstance(task.representation, AnonymisedWords)
    return task.representation


def draw(task: SummarizationDocstrings, seed: int) -> dict[str, torch.Tensor]:
    return dict(task.training_batch(torch.Generator().manual_seed(seed)))


def build(
    task: SummarizationDocstrings, attention: type, pattern: Pattern = Pattern.NONCAUSAL_SELF
) -> Summarizer:
    torch.manual_seed(0)
    model = task.build(Slots(pattern, attention, SoftmaxAttention))
    assert isinstance(model, Summarizer)
    return model


def test_pairs_are_those_of_the_split_by_module(splits: Splits) -> None:
    table = dataset(DATASET).table().select(["id", "module"]).to_pylist()
    modules = {row["id"]: row["module"] for row in table}
    found = {split: {modules[pair.id] for pair in pairs} for split, pairs in splits.items()}
    assert sum(map(len, splits.values())) == len(table)
    for split in SPLITS:
        assert found[split] == set(dataset(DATASET).split(split))
        assert not any(found[split] & found[other] for other in SPLITS if other != split)


def test_pairs_are_cut(splits: Splits) -> None:
    row = dataset(DATASET).select("test").to_pylist()[0]
    pair = splits["test"][0]
    assert pair.id == row["id"]
    assert list(pair.source[FIELD]) == words(row["source"])[:32]
    assert list(pair.target) == words(row["target"])[:TARGET_WORDS]
    whole = sum(len(words(row["target"])) <= TARGET_WORDS for row in _rows())
    assert whole > 0.98 * len(_rows()), "few summaries are cut"


def _rows() -> list[dict[str, str]]:
    rows: list[dict[str, str]] = dataset(DATASET).table().select(["target"]).to_pylist()
    return rows


def test_the_vocabulary_is_of_training_pairs_only(read: AnonymisedWords, splits: Splits) -> None:
    training = {
        word
        for pair in splits["train"]
        for text in (pair.source[FIELD], pair.target)
        for word in text
    }
    assert set(read.vocabulary.words[END + 1 :]) <= training


def test_most_target_words_can_be_written(read: AnonymisedWords) -> None:
    """As common words, or as placeholders that stand in the source."""
    targets = [encoded.target[1:] for encoded in read.corpora["validation"].encoded]
    ids = torch.tensor([token for target in targets for token in target])
    assert (ids == UNKNOWN).float().mean() < 0.15
    assert (ids >= read.entity_base).float().mean() > 0.03


@pytest.mark.parametrize("pattern", PATTERNS)
def test_only_slots_of_the_pattern_take_the_candidate(
    task: SummarizationDocstrings, pattern: Pattern
) -> None:
    softmax, none = build(task, SoftmaxAttention, pattern), build(task, NoAttention, pattern)
    for name, weight in softmax.state_dict().items():
        assert torch.equal(weight, none.state_dict()[name]), name
    assert [m.pattern for m in none.modules() if isinstance(m, NoAttention)] == [pattern]
    batch = draw(task, 0)
    assert not torch.equal(softmax.eval()(batch)[0], none.eval()(batch)[0])


def test_without_encoder_attention_a_word_is_encoded_alone(task: SummarizationDocstrings) -> None:
    batch = draw(task, 0)
    changed = {**batch, "source": batch["source"].clone()}
    assert batch["source"][0, 5] > END
    changed["source"][0, 5] = 10 if int(batch["source"][0, 5]) != 10 else 11
    with torch.no_grad():
        for attention, alone in ((NoAttention, True), (SoftmaxAttention, False)):
            model = build(task, attention).eval()
            before, after = model.encode(batch)[0], model.encode(changed)[0]
            assert not torch.equal(before[0, 5], after[0, 5])
            assert torch.equal(before[0, :5], after[0, :5]) is alone


def test_batches_are_a_function_of_the_seed(task: SummarizationDocstrings) -> None:
    first, again, other = draw(task, 3), draw(task, 3), draw(task, 4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert first["target"].shape != other["target"].shape or not torch.equal(
        first["target"], other["target"]
    )


def test_lengths_bound_every_batch(
    task: SummarizationDocstrings, read: AnonymisedWords, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert task.length() == (32, 32)
    monkeypatch.setattr(task, "pattern", Pattern.CAUSAL_CROSS)
    assert task.length() == (TARGET_WORDS + 1, 32)
    monkeypatch.setattr(task, "pattern", Pattern.CAUSAL_SELF)
    assert task.length() == (TARGET_WORDS + 1, TARGET_WORDS + 1)
    batch = draw(task, 0)
    assert batch["source"].shape[1] <= 32
    assert batch["target"].shape[1] <= TARGET_WORDS + 2
    assert int(batch["source"].max()) < len(read.vocabulary)
    assert (batch["target"][:, -1] != PADDING).any()


def test_evaluation_reports_every_metric(task: SummarizationDocstrings) -> None:
    model = build(task, SoftmaxAttention).eval()
    with torch.no_grad():
        scores = task.evaluate(model, "test", 0)
        assert task.evaluate(model, "validation", 0).keys() == {"nll", "entity_nll"}
        (artifact,) = task.artifacts(model, 0)
    assert list(scores) == [metric.name for metric in task.info.metrics]
    shown = artifact.content.decode()
    assert shown.count("reference") == 4
    documents = len(task.corpus("test"))
    assert task.corpus("test").reference(0) in shown
    assert task.corpus("test").reference(documents - 1) in shown


def test_base_scale_takes_a_step() -> None:
    task = SummarizationDocstrings(Pattern.CAUSAL_CROSS, Scale.BASE)
    model = build(task, SoftmaxAttention).eval()
    batch = task.corpus("train").batch(torch.arange(2), torch.Generator().manual_seed(0))
    optimiser = torch.optim.AdamW(model.parameters(), lr=task.recipe.learning_rate)
    before = task.loss(model, batch)
    before.backward()
    optimiser.step()
    assert task.loss(model, batch) < before
