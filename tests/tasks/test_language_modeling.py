"""Language modelling, and the text pipeline that it shares with masked language modelling."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from attentions.softmax_exact import ExactSoftmaxAttention
from cab import Attention, Pattern, Scale, Slots
from cab.errors import DataError, UsageError
from tasks.data.text import UNKNOWN, EncodedText, TextCorpus, Vocabulary, read_folder
from tasks.language_modeling.task import LanguageModeling

CANDIDATES = [SoftmaxAttention, ExactSoftmaxAttention, NoAttention]


@pytest.fixture(scope="module")
def task() -> LanguageModeling:
    return LanguageModeling(Pattern.CAUSAL_SELF, Scale.TINY)


def build(task: LanguageModeling, candidate: type[Attention], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return task.build(Slots(task.pattern, candidate, SoftmaxAttention, seed=seed))


def draw(task: LanguageModeling, seed: int) -> Tensor:
    return task.training_batch(torch.Generator().manual_seed(seed))["window"]


def write_folder(folder: Path, **texts: str) -> Path:
    for split, text in texts.items():
        (folder / split).mkdir(parents=True)
        (folder / split / "1.txt").write_text(text, encoding="utf-8")
    return folder


# The text pipeline


def test_vocabulary_is_of_the_training_text_only() -> None:
    corpus = TextCorpus.of("abca", "abz", "é☃𝄞a")
    assert corpus.vocabulary == Vocabulary("abc")
    assert corpus.vocabulary.size == 4
    assert corpus.train.ids.tolist() == [1, 2, 3, 1]
    assert corpus.validation.ids.tolist() == [1, 2, UNKNOWN]
    assert corpus.test.ids.tolist() == [UNKNOWN, UNKNOWN, UNKNOWN, 1]
    assert corpus.test.utf8_bytes.tolist() == [2, 3, 4, 1]


def test_vocabulary_keeps_the_commonest_characters() -> None:
    rare = "".join(map(chr, range(0x4E00, 0x4E00 + 300)))
    vocabulary = Vocabulary.of(rare + "aa")
    assert vocabulary.size == 256
    assert "a" in vocabulary.characters
    assert set(vocabulary.characters) - {"a"} == set(rare[:254])


def test_utf8_lengths_add_up(task: LanguageModeling) -> None:
    text = "Jesus wept.\n“Yes” — ½ 𝄞"
    encoded = task.corpus.vocabulary.encode(text)
    assert int(encoded.utf8_bytes.sum()) == len(text.encode())


def test_even_starts_give_disjoint_windows_over_the_whole_text() -> None:
    text = EncodedText(torch.zeros(1003, dtype=torch.uint8), torch.ones(1003, dtype=torch.uint8))
    starts = text.even_starts(10, 7)
    assert len(starts) == 7
    assert starts[0] == 0
    assert starts[-1] == 990
    assert int(starts.diff().min()) >= 10
    assert len(text.even_starts(10, 5000)) == 100


def test_no_book_is_shared_between_splits(task: LanguageModeling) -> None:
    """A run of 200 characters would betray a shared passage; single verses may repeat."""
    run = 200
    seen = task.corpus.train.ids.numpy().tobytes()
    for split in (task.corpus.validation, task.corpus.test):
        for start in split.even_starts(run, 50).tolist():
            assert split.ids[start : start + run].numpy().tobytes() not in seen
    validation = task.corpus.validation.ids.numpy().tobytes()
    for start in task.corpus.test.even_starts(run, 50).tolist():
        assert task.corpus.test.ids[start : start + run].numpy().tobytes() not in validation


def test_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    write_folder(tmp_path, train="first", validation="dev", test="held out")
    (tmp_path / "train" / "0.txt").write_text("zeroth", encoding="utf-8")
    (tmp_path / "train" / "notes.md").write_text("NOT READ", encoding="utf-8")
    corpus = read_folder(tmp_path)
    whole = corpus.vocabulary.encode("zeroth\nfirst")
    assert torch.equal(corpus.train.ids, whole.ids)
    assert "N" not in corpus.vocabulary.characters


def test_data_dir_is_used_and_hashed(tmp_path: Path) -> None:
    texts = {"train": "to be " * 50, "validation": "or not " * 50, "test": "to be " * 50}
    one = LanguageModeling(Pattern.CAUSAL_SELF, Scale.TINY, write_folder(tmp_path / "one", **texts))
    texts["test"] += "!"
    two = LanguageModeling(Pattern.CAUSAL_SELF, Scale.TINY, write_folder(tmp_path / "two", **texts))
    assert one.dataset == "one"
    assert one.data_hash != two.data_hash
    assert one.corpus.vocabulary == Vocabulary(" beot")
    model = build(one, SoftmaxAttention).eval()
    with torch.no_grad():
        assert math.isfinite(one.evaluate(model, "test", 0)["bits_per_byte"])


@pytest.mark.parametrize("missing", ["train", "validation", "test"])
def test_missing_split_is_named(tmp_path: Path, missing: str) -> None:
    present = {"train", "validation", "test"} - {missing}
    write_folder(tmp_path, **dict.fromkeys(present, "x" * 500))
    with pytest.raises(
        DataError, match=rf"{missing} is missing; expected .*train/\*\.txt"
    ) as caught:
        LanguageModeling(Pattern.CAUSAL_SELF, Scale.TINY, tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / missing).mkdir()
    with pytest.raises(DataError, match=rf"{missing} holds no \.txt file"):
        LanguageModeling(Pattern.CAUSAL_SELF, Scale.TINY, tmp_path)


def test_short_or_undecodable_text_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path, train="x" * 500, validation="x" * 500, test="x")
    with pytest.raises(DataError, match="the test text has 1 characters"):
        LanguageModeling(Pattern.CAUSAL_SELF, Scale.TINY, tmp_path)
    (tmp_path / "test" / "1.txt").write_bytes(b"\xff" * 500)
    with pytest.raises(DataError, match=r"1\.txt is not UTF-8"):
        LanguageModeling(Pattern.CAUSAL_SELF, Scale.TINY, tmp_path)


# The task


def test_other_patterns_are_refused() -> None:
    with pytest.raises(UsageError, match="causal-self"):
        LanguageModeling(Pattern.NONCAUSAL_CROSS, Scale.TINY)


def test_batches_follow_the_generator(task: LanguageModeling) -> None:
    assert draw(task, 1).shape == (task.recipe.batch_size, task.length()[0] + 1)
    assert torch.equal(draw(task, 1), draw(task, 1))
    assert not torch.equal(draw(task, 1), draw(task, 2))


def test_untrained_loss_is_that_of_the_uniform_distribution(task: LanguageModeling) -> None:
    model = build(task, SoftmaxAttention)
    loss = task.loss(model, {"window": draw(task, 0)}).item()
    assert loss == pytest.approx(math.log(task.corpus.vocabulary.size), rel=0.1)


@pytest.mark.parametrize("candidate", CANDIDATES)
def test_later_characters_do_not_change_earlier_logits(
    task: LanguageModeling, candidate: type[Attention]
) -> None:
    model = build(task, candidate).eval()
    tokens = draw(task, 0)[:2, :-1]
    cut = tokens.shape[1] // 2
    changed = tokens.clone()
    changed[:, cut:] = (changed[:, cut:] + 1) % task.corpus.vocabulary.size
    with torch.no_grad():
        before, after, prefix = model(tokens), model(changed), model(tokens[:, :cut])
    torch.testing.assert_close(before[:, :cut], after[:, :cut])
    torch.testing.assert_close(before[:, :cut], prefix)
    assert not torch.allclose(before[:, cut:], after[:, cut:])


def test_backbone_is_the_same_for_every_candidate(task: LanguageModeling) -> None:
    models = [build(task, candidate, seed=3) for candidate in CANDIDATES]
    first = models[0].state_dict()
    for model in models[1:]:
        state = model.state_dict()
        assert state.keys() == first.keys()
        assert all(torch.equal(state[name], first[name]) for name in first)
    other = build(task, SoftmaxAttention, seed=4).state_dict()
    assert not torch.equal(other["token.weight"], first["token.weight"])


def test_one_step_lowers_the_loss(task: LanguageModeling) -> None:
    model = build(task, SoftmaxAttention)
    batch = {"window": draw(task, 0)}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    before = task.loss(model, batch)
    before.backward()
    optimizer.step()
    assert task.loss(model, batch).item() < before.item()


class Uniform(nn.Module):
    """The uniform distribution over characters."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.bias.expand(*tokens.shape, -1)


def test_metrics_of_the_uniform_distribution(tmp_path: Path) -> None:
    """Every character of the test text takes two bytes."""
    texts = {"train": "abc" * 100, "validation": "abc" * 100, "test": "é" * 300}
    task = LanguageModeling(Pattern.CAUSAL_SELF, Scale.TINY, write_folder(tmp_path, **texts))
    model = Uniform(4)
    with torch.no_grad():
        assert task.evaluate(model, "validation", 0) == pytest.approx(
            {"bits_per_byte": 2.0, "perplexity": 4.0}
        )
        assert task.evaluate(model, "test", 0) == pytest.approx(
            {"bits_per_byte": 1.0, "perplexity": 4.0}
        )


def test_evaluation_reports_the_declared_metrics_and_repeats(task: LanguageModeling) -> None:
    model = build(task, SoftmaxAttention).eval()
    with torch.no_grad():
        once, again = task.evaluate(model, "test", 0), task.evaluate(model, "test", 1)
    assert list(once) == [metric.name for metric in task.info.metrics]
    assert once == again
