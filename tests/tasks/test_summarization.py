"""Summarisation: data, vocabulary, batches, the model's causality, decoding."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations

import pytest
import torch
from torch import nn

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from cab import Attention, Batch, Pattern, Scale, Slots
from tasks.backbones.transformer import CrossAttentionLayer
from tasks.data.embedded import dataset
from tasks.summarization import countries, target
from tasks.summarization.anonymised_corpus import AnonymisedCorpus
from tasks.summarization.anonymised_words import AnonymisedWords
from tasks.summarization.decoding import greedy, texts
from tasks.summarization.encoder_decoder import EncoderDecoder
from tasks.summarization.model import Summarizer
from tasks.summarization.pairs import Pair, Splits
from tasks.summarization.task import Summarization
from tasks.summarization.vocabulary import END, PADDING, START, UNKNOWN, Vocabulary
from tasks.summarization.words import words

PATTERNS = Summarization.info.patterns

FIELD_WORDS, TARGET_WORDS = 10, 62


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    # At these sizes a second thread costs more than it gives, most of all on a busy machine.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def splits() -> Splits:
    return countries.read_countries(field_words=FIELD_WORDS, target_words=TARGET_WORDS)


@pytest.fixture(scope="module")
def task() -> Summarization:
    return Summarization(Pattern.CAUSAL_CROSS, Scale.TINY)


@pytest.fixture(scope="module")
def read(task: Summarization) -> AnonymisedWords:
    assert isinstance(task.representation, AnonymisedWords)
    return task.representation


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model_of(
    task: Summarization, attention: type[Attention] = SoftmaxAttention, seed: int = 0
) -> Summarizer:
    torch.manual_seed(seed)
    model = task.build(Slots(task.pattern, attention, SoftmaxAttention, seed=seed))
    assert isinstance(model, Summarizer)
    return model


def test_words() -> None:
    assert words("The U.S. (pop. 1,263) isn't mid-1990s;") == [
        *("the", "u.s", ".", "(", "pop", ".", "1,263", ")", "isn't", "mid-1990s", ";")
    ]
    assert words("one two three", 2) == ["one", "two"]
    assert words(" ") == []


def test_the_summary_follows_the_template() -> None:
    fields = {
        target.NAME: "Freedonia (short form)",
        target.GOVERNMENT: "presidential republic; note: since 1933",
        target.LOCATION: "Southern Europe, bordering Sylvania",
        target.CAPITAL: "Fredon",
        target.BORDERS: "Sylvania 12 km; Osterlich (disputed, by sea) 1,200 km; A 1 km; B 2 km",
        target.PARTNERS: "Sylvania 29%, USA 8% (2023)",
        target.CHIEF: "President Rufus T. FIREFLY (since 1933)",
    }
    text = " ".join(target.summary({name: words(text) for name, text in fields.items()}, 99))
    assert text == (
        "freedonia is a presidential republic in southern europe . its capital is fredon . "
        "it borders sylvania and osterlich and a . it trades with sylvania and usa . "
        "led by president rufus t . firefly ."
    )


def test_a_country_without_a_required_field_has_no_pair() -> None:
    texts = dict.fromkeys(target.REQUIRED, "somewhere")
    assert countries.country_pair("xx", texts, 10, 62) is not None
    for name in target.REQUIRED:
        assert (
            countries.country_pair("xx", {k: v for k, v in texts.items() if k != name}, 10, 62)
            is None
        )
    named = countries.country_pair(
        "xx", {**texts, target.NAME: "none", countries.LONG_NAME: "Holy See"}, 10, 62
    )
    assert named is not None
    assert named.target[:2] == ["holy", "see"]


def test_countries_are_split_as_the_manifest_says(splits: Splits) -> None:
    ids = {split: {pair.id for pair in pairs} for split, pairs in splits.items()}
    assert all(not ids[a] & ids[b] for a, b in combinations(ids, 2))
    for split, found in ids.items():
        assert found <= set(dataset(countries.DATASET).split(split))
        assert len(found) >= 20


def test_every_target_word_is_of_the_template_or_of_the_source(splits: Splits) -> None:
    template = words(
        "is a in . its capital is . it borders and people speak it trades with led by it exports"
    )
    for pairs in splits.values():
        for pair in pairs:
            source = {word for field in pair.source.values() for word in field}
            assert set(pair.target) <= source.union(template)
            assert len(pair.target) <= TARGET_WORDS


def test_the_vocabulary_is_of_training_countries_only(
    read: AnonymisedWords, splits: Splits
) -> None:
    training = {
        word
        for pair in splits["train"]
        for text in (*pair.source.values(), pair.target)
        for word in text
    }
    vocabulary = read.vocabulary
    assert set(vocabulary.words[END + 1 :]) <= training
    again = Vocabulary.of(splits["train"], len(vocabulary.words) - END - 1, 128)
    assert again.words == vocabulary.words
    assert len(vocabulary) == len(vocabulary.words) + vocabulary.placeholders


def test_encoding_and_back() -> None:
    vocabulary = Vocabulary(["is", "a", "."], placeholders=2)
    pair = Pair(
        "x",
        {"name": ["chad", "is", "chad"], "rest": ["a", "lake", "ndjamena"]},
        ["chad", "is", "lake", "ndjamena", "oslo"],
    )
    encoded = vocabulary.encode(pair)
    base = vocabulary.entity_base
    assert encoded.entities == ["chad", "lake"]
    assert encoded.source["name"] == [base, 4, base]
    assert encoded.source["rest"] == [5, base + 1, UNKNOWN], "more entities than placeholders"
    assert encoded.target == [START, base, 4, base + 1, UNKNOWN, UNKNOWN, END]
    decoded = vocabulary.decode(encoded.target, encoded.entities)
    assert decoded == ["chad", "is", "lake", "<unk>", "<unk>"]


def test_placeholders_map_back_to_the_words(read: AnonymisedWords, splits: Splits) -> None:
    corpus, vocabulary = read.corpora["test"], read.vocabulary
    batch = corpus.batch(torch.arange(8), generator())
    for row in range(8):
        back = batch["placeholders"][row].argsort()
        ids = batch["target"][row]
        base = vocabulary.entity_base
        local = torch.where(ids >= base, base + back[(ids - base).clamp_min(0)], ids)
        found = vocabulary.decode(local.tolist(), corpus.encoded[row].entities)
        assert found == list(splits["test"][row].target)
    rows = list(range(8))
    references = [" ".join(splits["test"][row].target) for row in rows]
    assert corpus.texts(rows, texts(batch["target"]), batch) == references
    assert [corpus.reference(row) for row in rows] == references


def test_a_placeholder_of_nothing_is_a_word_that_no_document_has(read: AnonymisedWords) -> None:
    corpus, base = read.corpora["test"], read.vocabulary.entity_base
    batch = corpus.batch(torch.tensor([0]), generator())
    named = len(corpus.encoded[0].entities)
    free = base + int(batch["placeholders"][0, named])
    (text,) = corpus.texts([0], [[free]], batch)
    assert text == f"<entity{free - base}>"
    assert text not in {word for pair in corpus.encoded for word in pair.entities}


def test_a_batch_is_the_source_in_another_order_of_fields(read: AnonymisedWords) -> None:
    corpus = read.corpora["train"]
    batch = corpus.batch(torch.arange(4), generator())
    field_orders = []
    for row in range(4):
        valid = batch["source"][row] != PADDING
        count = int(valid.sum())
        assert valid[:count].all(), "padding stands at the end"
        source = corpus.encoded[row].source
        assert count == sum(map(len, source.values()))
        fields = batch["field"][row, :count].tolist()
        order = list(dict.fromkeys(fields))
        field_orders.append(order)
        assert sorted(order) == [read.fields.index(name) for name in source]
        expected_offsets = [i for f in order for i in range(len(source[read.fields[f]]))]
        assert batch["offset"][row, :count].tolist() == expected_offsets
        known = [i for f in order for i in source[read.fields[f]]]
        for ours, theirs in zip(known, batch["source"][row, :count].tolist(), strict=True):
            assert (ours == theirs) or min(ours, theirs) >= read.vocabulary.entity_base
    assert any(order != sorted(order) for order in field_orders)
    assert (batch["source"][:, -1] != PADDING).any(), "trimmed to the longest source"
    assert (batch["target"][:, -1] == END).any()


def test_batches_are_a_function_of_the_seed(task: Summarization) -> None:
    first, again = (task.training_batch(generator(3)) for _ in range(2))
    other = task.training_batch(generator(4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["placeholders"], other["placeholders"])


def test_placeholders_are_drawn_afresh(read: AnonymisedWords) -> None:
    random = generator()
    rows = torch.tensor([5])
    first, second = (read.corpora["train"].batch(rows, random) for _ in range(2))
    assert not torch.equal(first["target"], second["target"])
    base = read.vocabulary.entity_base
    common = [t["target"].where(t["target"] < base, base) for t in (first, second)]
    assert torch.equal(*common)


def test_an_untrained_model_knows_nothing(task: Summarization, read: AnonymisedWords) -> None:
    model = model_of(task).eval()
    with torch.no_grad():
        scores = task.evaluate(model, "validation", 0)
        again = task.evaluate(model, "validation", 1)
    assert scores["nll"] == pytest.approx(math.log(len(read.vocabulary)), abs=0.8)
    assert again == scores, "the seed draws nothing at evaluation"
    assert set(scores) == {"nll", "entity_nll"}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_later_target_tokens_do_not_change_earlier_predictions(pattern: Pattern) -> None:
    task = Summarization(pattern, Scale.TINY)
    model = model_of(task).eval()
    batch = task.training_batch(generator())
    tokens = batch["target"][:, :20]
    changed = tokens.clone()
    changed[:, 12:] = 7
    with torch.no_grad():
        memory, mask = model.encode(batch)
        whole, other, short = (
            model.decode(t, memory, mask)[:, :12] for t in (tokens, changed, tokens[:, :12])
        )
    torch.testing.assert_close(other, whole)
    torch.testing.assert_close(short, whole)


def test_padding_of_the_source_has_no_effect(task: Summarization) -> None:
    model = model_of(task).eval()
    batch = task.corpus("train").batch(torch.arange(6), generator())
    lengths = (batch["source"] != PADDING).sum(1)
    row = int(lengths.argmin())
    assert lengths[row] < batch["source"].shape[1]
    alone: Batch = {
        name: batch[name][row : row + 1, : lengths[row]] for name in ("source", "field", "offset")
    }
    tokens = batch["target"][row : row + 1]
    with torch.no_grad():
        together = model.decode(batch["target"], *model.encode(batch))[row]
        torch.testing.assert_close(model.decode(tokens, *model.encode(alone))[0], together)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_candidates_share_all_but_their_own_weights(pattern: Pattern) -> None:
    task = Summarization(pattern, Scale.TINY)
    softmax, none = model_of(task), model_of(task, NoAttention)
    assert softmax.state_dict().keys() == none.state_dict().keys()
    for name, weight in softmax.state_dict().items():
        assert torch.equal(weight, none.state_dict()[name]), name
    other = model_of(task, seed=1)
    assert not torch.equal(other.embedding.weight, softmax.embedding.weight)
    replaced = [m for m in none.modules() if isinstance(m, NoAttention)]
    assert len(replaced) == 1, "one layer at scale tiny"
    assert {m.pattern for m in replaced} == {pattern}


def test_attentions_start_as_copies(task: Summarization) -> None:
    model = model_of(task)
    layer = model.decoder[0]
    assert isinstance(layer, CrossAttentionLayer)
    dim = model.embedding.embedding_dim
    torch.testing.assert_close(layer.cross_attention.output.weight, torch.eye(dim))
    torch.testing.assert_close(layer.attention.output.weight, 0.5 * torch.eye(dim))


def test_one_step_lowers_the_loss(task: Summarization) -> None:
    model = model_of(task).eval()
    batch = task.training_batch(generator())
    optimiser = torch.optim.AdamW(model.parameters(), lr=task.recipe.learning_rate)
    before = task.loss(model, batch)
    before.backward()
    optimiser.step()
    assert task.loss(model, batch) < before


def test_lengths_bound_every_batch(task: Summarization) -> None:
    queries, keys = task.length()
    batch = task.training_batch(generator())
    assert batch["target"].shape[1] - 1 <= queries <= TARGET_WORDS + 1
    assert batch["source"].shape[1] <= keys
    own = Summarization(Pattern.CAUSAL_SELF, Scale.TINY)
    assert own.length() == (queries, queries)
    encoder = Summarization(Pattern.NONCAUSAL_SELF, Scale.TINY)
    assert encoder.length() == (keys, keys)


class Recites(EncoderDecoder):
    """Predicts the text it was given, whatever the source."""

    def __init__(self, text: torch.Tensor, size: int) -> None:
        nn.Module.__init__(self)
        self.text, self.size = text, size

    def encode(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        return batch["source"], batch["source"] != PADDING

    def decode(
        self, tokens: torch.Tensor, memory: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        return self.text[:, 1 : tokens.shape[1] + 1]

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(features, self.size).float()


def test_greedy_outputs_are_the_likeliest_tokens(read: AnonymisedWords) -> None:
    batch = read.corpora["test"].batch(torch.arange(6), generator())
    outputs = greedy(Recites(batch["target"], len(read.vocabulary)), batch, TARGET_WORDS)
    assert outputs == texts(batch["target"])


def test_greedy_decoding_ends_and_avoids_special_tokens(task: Summarization) -> None:
    model = model_of(task).eval()
    batch = task.corpus("test").batch(torch.arange(3), generator())
    with torch.no_grad():
        model.output_bias[UNKNOWN] = 100.0
        outputs = greedy(model, batch, 5)
        assert all(len(out) <= 5 and min(out) > END for out in outputs if out)
        model.output_bias[END] = 100.0
        assert greedy(model, batch, 5) == [[], [], []]
        assert [len(out) for out in greedy(model, batch, 5, shortest=2)] == [2, 2, 2]


def test_texts_end_at_the_first_end() -> None:
    tokens = torch.tensor([[START, 8, 9, END, 9], [START, 8, 9, 9, 9]])
    assert texts(tokens) == [[8, 9], [8, 9, 9, 9]]


def test_evaluation_on_test_reports_every_metric(task: Summarization) -> None:
    with torch.no_grad():
        scores = task.evaluate(model_of(task).eval(), "test", 0)
    assert list(scores) == [metric.name for metric in task.info.metrics]
    assert all(0 <= scores[name] <= 100 for name in ("rouge_1", "rouge_2", "rouge_l"))


def test_every_number_fits_its_embedding(splits: Splits, read: AnonymisedWords) -> None:
    corpus = AnonymisedCorpus(splits["validation"], read.vocabulary, countries.FIELDS)
    batch = corpus.batch(torch.arange(len(corpus)), generator())
    assert int(batch["field"].max()) < len(read.fields)
    assert int(batch["offset"].max()) < FIELD_WORDS
    assert int(batch["source"].max()) < len(read.vocabulary)


def test_base_scale_takes_a_step() -> None:
    task = Summarization(Pattern.CAUSAL_CROSS, Scale.BASE)
    model = model_of(task).eval()
    batch = task.corpus("train").batch(torch.arange(2), generator())
    assert int((batch["source"] == UNKNOWN).sum()) == 0, "placeholders for every rare word"
    optimiser = torch.optim.AdamW(model.parameters(), lr=task.recipe.learning_rate)
    before = task.loss(model, batch)
    before.backward()
    optimiser.step()
    assert task.loss(model, batch) < before
