"""Summarisation at scale paper: subwords, CAB's geometry and lengths, its recipe."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from cab import Pattern, Scale, Slots
from cab.errors import DataError, UsageError
from tasks.data.embedded import SPLITS
from tasks.summarization import subwords as subwords_module
from tasks.summarization.backgrounds import read_backgrounds
from tasks.summarization.decoding import greedy
from tasks.summarization.encoder_decoder import Sizes
from tasks.summarization.pairs import TextPair
from tasks.summarization.paragen import ParaGenTransformer
from tasks.summarization.subword_text import SubwordCorpus, SubwordText
from tasks.summarization.subwords import VOCABULARY, Subwords
from tasks.summarization.task import Summarization
from tasks.summarization.vocabulary import END, PADDING, START
from tests.tasks.test_summarization_plain_files import folder_of

PATTERNS = Summarization.info.patterns

SMALL = Sizes(dim=32, heads=2, layers=2)

PAIRS = [
    TextPair(str(i), f"Ann{i} met Bob at the lake.\nBob{i} </s> left — café.", f"Ann{i} met Bob.")
    for i in range(9)
]


@pytest.fixture(scope="module")
def subwords() -> Subwords:
    return Subwords.learned(PAIRS, 300)


@pytest.fixture
def task(tmp_path: Path) -> Summarization:
    return Summarization(Pattern.CAUSAL_CROSS, Scale.PAPER, folder_of(tmp_path))


def model_of(
    pattern: Pattern, attention: type = SoftmaxAttention, tokens: int = 300
) -> ParaGenTransformer:
    torch.manual_seed(0)
    slots = Slots(pattern, attention, SoftmaxAttention)
    return ParaGenTransformer(slots, tokens, sizes=SMALL, source_length=64, target_length=32)


def batch_of(subwords: Subwords) -> dict[str, torch.Tensor]:
    corpus = SubwordCorpus(PAIRS, subwords, 40, 20)
    return dict(corpus.batch(torch.arange(4), torch.Generator()))


# Subwords


def test_text_comes_back(subwords: Subwords) -> None:
    text = "Ann met </s> someone\nelse: naïve 🌊 <pad>"
    (ids,) = subwords.encode([text])
    assert subwords.decode([START, *ids, END]) == text
    assert min(ids) > END, "what reads like a special token is text"
    assert len(subwords) <= 300


def test_learned_subwords_are_the_same_in_every_process(subwords: Subwords) -> None:
    program = (
        "import json, sys;"
        "from tasks.summarization.pairs import TextPair;"
        "from tasks.summarization.subwords import Subwords;"
        "pairs = [TextPair(*texts) for texts in json.loads(sys.argv[1])];"
        "print(Subwords.learned(pairs, 300).serialised())"
    )
    pairs = json.dumps([(pair.id, pair.source, pair.target) for pair in PAIRS])
    run = subprocess.run(
        [sys.executable, "-c", program, pairs], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == subwords.serialised()


@pytest.fixture
def bart(tmp_path: Path) -> Path:
    """A folder with tokenizer files as BART's are: special tokens in its order, then bytes."""
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<s>", "<pad>", "</s>", "<unk>", *letters, "th", "the", "<mask>"]
    tokens = {name: number for number, name in enumerate(names)}
    (tmp_path / "vocab.json").write_text(json.dumps(tokens), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\nt h\nth e\n", encoding="utf-8")
    return tmp_path


def test_the_tokens_of_bart_are_used_where_they_lie(bart: Path) -> None:
    subwords = Subwords.of(PAIRS, bart)
    assert len(subwords) == 4 + 256 + 3
    names = json.loads((bart / "vocab.json").read_text(encoding="utf-8"))
    (ids,) = subwords.encode(["the thing"])
    assert ids == [names[name] for name in ("the", "Ġ", "th", "i", "n", "g")]
    assert subwords.decode([START, *ids, END, PADDING]) == "the thing"


def test_other_tokenizer_files_are_refused(bart: Path) -> None:
    names = json.loads((bart / "vocab.json").read_text(encoding="utf-8"))
    (bart / "merges.txt").write_text("#version: 0.2\nq u\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"merges\.txt merges q and u, which vocab\.json"):
        Subwords.of(PAIRS, bart)
    (bart / "merges.txt").unlink()
    with pytest.raises(DataError, match=r"merges\.txt is missing; expected vocab\.json and"):
        Subwords.of(PAIRS, bart)
    (bart / "merges.txt").write_text("t h\n", encoding="utf-8")
    for tokens in ({**names, "<pad>": 700}, {"a": 0, "b": 1}, ["<s>"], {}):
        (bart / "vocab.json").write_text(json.dumps(tokens), encoding="utf-8")
        with pytest.raises(DataError, match=r"vocab\.json does not number its tokens from 0"):
            Subwords.of(PAIRS, bart)
    (bart / "vocab.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"vocab\.json does not number") as caught:
        Subwords.of(PAIRS, bart)
    assert "\n" not in str(caught.value)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UsageError, match=r"pip install 'cab\[subwords\]'"):
        Subwords.learned(PAIRS)


# The corpus


def test_pairs_are_cut_and_padded(subwords: Subwords) -> None:
    """A source keeps END only if it fits, a target of T predicted tokens has T + 1."""
    corpus = SubwordCorpus(PAIRS, subwords, 12, 5)
    batch = corpus.batch(torch.arange(9), torch.Generator())
    assert batch["source"].shape == (9, 12)
    assert batch["target"].shape == (9, 6)
    assert (batch["target"][:, 0] == START).all()
    assert not (batch["source"] == END).any()
    whole = SubwordCorpus(PAIRS, subwords, 4096, 400)
    batch = whole.batch(torch.tensor([3]), torch.Generator())
    assert batch["source"][0, -1] == batch["target"][0, -1] == END
    assert whole.texts([3], [batch["target"][0].tolist()], batch) == [whole.reference(3)]
    assert whole.source_length <= 4096
    uneven = SubwordCorpus([TextPair("", "a", "b"), *PAIRS], subwords, 99, 99)
    batch = uneven.batch(torch.tensor([0, 1]), torch.Generator())
    assert (batch["source"][0, 2:] == PADDING).all()
    assert (batch["target"][0, 3:] == PADDING).all()


def test_backgrounds_are_no_part_of_their_source() -> None:
    countries: set[str] = set()
    for split in SPLITS:
        pairs = list(read_backgrounds(split))
        assert not countries & {pair.id for pair in pairs}
        countries |= {pair.id for pair in pairs}
        for pair in pairs:
            assert pair.target
            assert pair.target not in pair.source
            assert len(pair.source) > len(pair.target)


# The model


def by_hand(tokens: int, dim: int, hidden: int, layers: int, positions: int) -> int:
    """Weights and biases of CAB's Transformer: three token matrices, no tie, no output bias."""
    attention = 4 * (dim * dim + dim)
    feed_forward = dim * hidden + hidden + hidden * dim + dim
    norm = 2 * dim
    encoder = attention + feed_forward + 2 * norm
    decoder = 2 * attention + feed_forward + 3 * norm
    return 3 * tokens * dim + positions * dim + 2 * norm + layers * (encoder + decoder)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_parameters_at_the_published_geometry(pattern: Pattern) -> None:
    with torch.device("meta"):
        slots = Slots(pattern, SoftmaxAttention, SoftmaxAttention)
        model = ParaGenTransformer(slots, VOCABULARY)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters == by_hand(50_265, 512, 2048, 6, 4096 + 512) == 123_706_880
    assert len(slots.candidates) == 6


@pytest.mark.parametrize("pattern", PATTERNS)
def test_later_target_tokens_do_not_change_earlier_predictions(
    pattern: Pattern, subwords: Subwords
) -> None:
    model, batch = model_of(pattern).eval(), batch_of(subwords)
    changed = batch["target"].clone()
    changed[:, 4:] = 7
    with torch.no_grad():
        memory, mask = model.encode(batch)
        whole = model.decode(batch["target"], memory, mask)[:, :4]
        torch.testing.assert_close(model.decode(changed, memory, mask)[:, :4], whole)
        torch.testing.assert_close(model.decode(changed[:, :4], memory, mask), whole)


def test_padding_of_the_source_has_no_effect(subwords: Subwords) -> None:
    model, batch = model_of(Pattern.CAUSAL_CROSS).eval(), batch_of(subwords)
    padded = {**batch, "source": torch.nn.functional.pad(batch["source"], (0, 9))}
    torch.testing.assert_close(model(padded)[0], model(batch)[0])


def test_layers_are_post_norm(subwords: Subwords) -> None:
    """What leaves a layer has been normed last: mean 0 and variance 1, as norms start."""
    model, batch = model_of(Pattern.CAUSAL_SELF).eval(), batch_of(subwords)
    memory, mask = model.encode(batch)
    for features in (memory, model.decode(batch["target"], memory, mask)):
        torch.testing.assert_close(features.mean(-1), torch.zeros(features.shape[:2]))
        variance = features.var(-1, correction=0)
        torch.testing.assert_close(variance, torch.ones_like(variance), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_candidates_share_all_but_their_own_weights(pattern: Pattern) -> None:
    softmax, none = model_of(pattern), model_of(pattern, NoAttention)
    for name, weight in softmax.state_dict().items():
        assert torch.equal(weight, none.state_dict()[name]), name
    replaced = [m for m in none.modules() if isinstance(m, NoAttention)]
    assert [m.pattern for m in replaced] == [pattern] * SMALL.layers


def test_outputs_are_no_shorter_than_asked(subwords: Subwords) -> None:
    model, batch = model_of(Pattern.CAUSAL_CROSS).eval(), batch_of(subwords)
    with torch.no_grad():
        model.output.weight[END] = 0.0
        model.output.weight[:END] = 0.0
        outputs = greedy(model, batch, longest=9, shortest=6)
    assert all(6 <= len(output) <= 9 for output in outputs)


# The task


def test_the_task_builds_the_published_model(task: Summarization) -> None:
    with torch.device("meta"):
        model = task.build(Slots(task.pattern, SoftmaxAttention, SoftmaxAttention))
    assert isinstance(task.representation, SubwordText)
    tokens = len(task.representation.subwords)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters == by_hand(tokens, 512, 2048, 6, 4096 + 512)


def test_the_embedded_data_fills_the_published_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subwords_module, "LEARNED_FROM", 10)
    task = Summarization(Pattern.CAUSAL_CROSS, Scale.PAPER)
    assert task.length() == (400, 4096)
    assert {len(task.corpus(split)) for split in SPLITS} == {
        len(list(read_backgrounds(split))) for split in SPLITS
    }


def test_the_recipe_is_the_published_one(task: Summarization) -> None:
    recipe, setting = task.recipe, task.setting
    assert recipe.batch_size * recipe.accumulate == 8 * 4 * 2
    assert (recipe.steps, recipe.learning_rate, recipe.warmup_steps) == (50_000, 5e-4, 1000)
    assert (recipe.betas, recipe.weight_decay) == ((0.9, 0.98), 0.01)
    assert (recipe.schedule, recipe.precision) == ("inverse-sqrt", "bfloat16")
    assert math.isinf(recipe.gradient_clip)
    assert (setting.smoothing, setting.shortest, setting.longest) == (0.1, 200, 400)


def test_a_folder_is_trained_on_and_scored(
    task: Summarization, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = replace(task.setting, shortest=2, longest=8, decoded=3)
    monkeypatch.setattr(Summarization, "setting", setting)
    assert isinstance(task.representation, SubwordText)
    model = model_of(task.pattern, tokens=len(task.representation.subwords))
    batch = task.training_batch(torch.Generator().manual_seed(0))
    optimiser = torch.optim.AdamW(model.eval().parameters(), lr=1e-3)
    before = task.loss(model, batch)
    before.backward()
    optimiser.step()
    assert task.loss(model, batch) < before
    with torch.no_grad():
        scores = task.evaluate(model, "test", 0)
        (artifact,) = task.artifacts(model, 0)
    assert list(scores) == ["nll", "rouge_1", "rouge_2", "rouge_l"]
    assert "reference  Ann0 met Bob0 ." in artifact.content.decode()


def test_smoothing_is_of_the_loss_alone(task: Summarization) -> None:
    """A model that is sure and right has no likelihood to lose but pays for being sure."""

    class Sure(torch.nn.Module):
        def forward(self, batch: object) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.tensor([[30.0, 0.0, 0.0]]), torch.tensor([0])

    assert task.loss(Sure(), {}).item() == pytest.approx(0.1 * 30 * 2 / 3)


def test_the_hash_covers_data_and_tokens(task: Summarization, bart: Path) -> None:
    before = task.data_hash
    assert task.data_dir is not None
    for name in ("vocab.json", "merges.txt"):
        (task.data_dir / name).write_bytes((bart / name).read_bytes())
    again = Summarization(task.pattern, Scale.PAPER, task.data_dir)
    assert again.data_hash != before
    small = Summarization(task.pattern, Scale.TINY, task.data_dir)
    assert small.data_hash not in (before, again.data_hash)
