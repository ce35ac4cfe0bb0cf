"""Language modelling, and the text pipeline that it shares with masked language modelling."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from attentions.softmax_exact import ExactSoftmaxAttention
from cab import Attention, Pattern, Scale, Slots
from cab.errors import DataError, UsageError
from tasks.backbones.positions import sinusoid
from tasks.backbones.token_transformer import TokenTransformer
from tasks.data.text import UNKNOWN, EncodedText, TextCorpus, Vocabulary
from tasks.data.text_source import folder_problems, read_folder
from tasks.language_modeling.task import LONGEST, LanguageModeling
from tasks.masked_lm.task import MaskedLanguageModeling

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


def test_folder_is_read_up_to_a_limit(tmp_path: Path) -> None:
    """A line break counts, and the file that crosses the limit is cut."""
    write_folder(tmp_path, train="abc", validation="v", test="t")
    for name, text in (("2", "defg"), ("3", "hij")):
        (tmp_path / "train" / f"{name}.txt").write_text(text, encoding="utf-8")
    limits = {"train": 6, "validation": 9, "test": 9}
    corpus = read_folder(tmp_path, limits)
    assert corpus.vocabulary.decode(corpus.train.ids) == "abc\nde"
    whole = read_folder(tmp_path)
    assert whole.vocabulary.decode(whole.train.ids) == "abc\ndefg\nhij"


def test_pieces_are_encoded_like_the_whole() -> None:
    pieces = ["to be, é", "", "or not", "☃𝄞 to"]
    vocabulary = Vocabulary.of_pieces(pieces)
    assert vocabulary == Vocabulary.of("".join(pieces))
    one, other = vocabulary.encode_pieces(pieces), vocabulary.encode("".join(pieces))
    assert torch.equal(one.ids, other.ids)
    assert torch.equal(one.utf8_bytes, other.utf8_bytes)


@pytest.mark.parametrize("task_class", [LanguageModeling, MaskedLanguageModeling])
def test_every_problem_of_a_folder_is_reported(
    tmp_path: Path, task_class: type[LanguageModeling | MaskedLanguageModeling]
) -> None:
    """PG-19: one file per book in train, validation and test."""
    assert len(task_class.data_problems(tmp_path / "nowhere")) == 3
    write_folder(tmp_path, train="x" * 20_000, test="x" * 20_000)
    assert len(task_class.data_problems(tmp_path)) == 1
    (tmp_path / "train" / "2.txt").write_bytes(b"\xff")
    (tmp_path / "train" / "3.txt").write_bytes(b"\xfe")
    (tmp_path / "validation").mkdir()
    (tmp_path / "test" / "1.txt").write_text("too short", encoding="utf-8")
    problems = task_class.data_problems(tmp_path)
    faults = ("2.txt is not UTF-8", "3.txt is not UTF-8", "holds no .txt file", "9 characters")
    assert len(problems) == len(faults)
    for problem, fault in zip(problems, faults, strict=True):
        assert fault in problem
        assert str(tmp_path) in problem
        assert "\n" not in problem
    good = tmp_path / "good"
    write_folder(good, **dict.fromkeys(("train", "validation", "test"), "x" * 20_000))
    assert task_class.data_problems(good) == []
    assert "a window needs 30000" in folder_problems(good, 30_000)[0]


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
            {"bits_per_byte": 2.0, "perplexity": 4.0, "bits_per_byte_2x": 2.0}
        )
        assert task.evaluate(model, "test", 0) == pytest.approx(
            {"bits_per_byte": 1.0, "perplexity": 4.0, "bits_per_byte_2x": 1.0}
        )


def test_evaluation_reports_the_declared_metrics_and_repeats(task: LanguageModeling) -> None:
    model = build(task, SoftmaxAttention).eval()
    with torch.no_grad():
        once, again = task.evaluate(model, "test", 0), task.evaluate(model, "test", 1)
    assert list(once) == [metric.name for metric in task.info.metrics]
    assert once == again


# Length extrapolation


def test_untrained_positions_continue_the_sinusoid(task: LanguageModeling) -> None:
    """Up to the trained length the longer model is the same function, parameters included."""
    length = task.length()[0]
    model = build(task, SoftmaxAttention).eval()
    assert isinstance(model, TokenTransformer)
    assert model.position.shape[0] == length
    start = sinusoid(LONGEST * length, model.position.shape[1])
    assert torch.equal(torch.cat([model.position, model.beyond]), start)
    assert "beyond" not in model.state_dict()
    tokens = draw(task, 0)[:1, :-1].repeat(1, LONGEST)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens)[:, :length], model(tokens[:, :length]))
        assert model(tokens).shape[1] == LONGEST * length


def test_mechanisms_are_told_of_the_longest_window(task: LanguageModeling) -> None:
    slots = Slots(task.pattern, SoftmaxAttention, SoftmaxAttention)
    task.build(slots)
    assert {m.spec.max_length for m in slots.candidates} == {LONGEST * task.length()[0]}


class Reader(nn.Module):
    """Certain which of two characters comes next, but for the first 100 of a window."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, tokens: Tensor) -> Tensor:
        logits = self.bias.repeat(*tokens.shape, 1)
        logits[:, 100:] += 100 * nn.functional.one_hot(tokens[:, 100:] % 2 + 1, len(self.bias))
        return logits


def test_longer_windows_give_more_context(tmp_path: Path) -> None:
    """A text that alternates, and a model that is certain from the hundredth character on."""
    text = "ab" * 400
    folder = write_folder(tmp_path, **dict.fromkeys(("train", "validation", "test"), text))
    task = LanguageModeling(Pattern.CAUSAL_SELF, Scale.TINY, folder)
    length, classes = task.length()[0], task.corpus.vocabulary.size
    curve = task.extrapolation(Reader(classes))
    assert list(curve) == [1 / 4, 1 / 2, 1, 2, 4]
    for multiple, bits in curve.items():
        window = round(multiple * length)
        assert bits == pytest.approx(math.log2(classes) * min(window, 100) / window, abs=1e-4)
    scores = task.evaluate(Reader(classes), "test", 0)
    assert scores["bits_per_byte_2x"] == pytest.approx(curve[2])


def test_curve_ends_where_the_text_does(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, **dict.fromkeys(("train", "validation", "test"), "ab" * 100))
    task = LanguageModeling(Pattern.CAUSAL_SELF, Scale.TINY, folder)
    model = build(task, SoftmaxAttention).eval()
    with torch.no_grad():
        assert list(task.extrapolation(model)) == [1 / 4, 1 / 2, 1, 2]
        assert [artifact.name for artifact in task.artifacts(model, 0)] == [
            "continuations",
            "length-extrapolation",
        ]


# The larger scales


def by_hand(dim: int, layers: int, length: int, tokens: int, classes: int) -> int:
    """Parameters of a pre-norm Transformer with feed-forward layers of 4 times the width."""
    attention = 4 * (dim * dim + dim)
    feed_forward = dim * 4 * dim + 4 * dim + 4 * dim * dim + dim
    layer = attention + feed_forward + 2 * 2 * dim
    return tokens * dim + length * dim + layers * layer + 2 * dim + dim * classes + classes


def test_parameters_at_paper_scale() -> None:
    """GPT-2 small: its 12 layers have 85 million parameters."""
    task = LanguageModeling(Pattern.CAUSAL_SELF, Scale.PAPER)
    size = task.corpus.vocabulary.size
    parameters = sum(p.numel() for p in build(task, SoftmaxAttention).parameters())
    assert by_hand(768, 12, 0, 0, 0) == 12 * 7_087_872 + 1536
    assert parameters == by_hand(768, 12, 8192, size, size)
    assert 91.4e6 < parameters < 91.8e6
    assert task.length() == (8192, 8192)
    assert task.recipe.batch_size * task.recipe.accumulate == 16


def test_base_scale_takes_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    task = LanguageModeling(Pattern.CAUSAL_SELF, Scale.BASE)
    size = task.corpus.vocabulary.size
    monkeypatch.setattr(LanguageModeling, "recipe", replace(task.recipe, batch_size=2))
    model = build(task, SoftmaxAttention)
    assert sum(p.numel() for p in model.parameters()) == by_hand(256, 6, 512, size, size)
    batch = {"window": draw(task, 0)}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    before = task.loss(model, batch)
    before.backward()
    optimizer.step()
    assert task.loss(model, batch).item() < before.item()
