"""The backbones of text to speech: published geometry, what each output may see, free synthesis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from attentions.softmax_exact import ExactSoftmaxAttention
from cab import Attention, Batch, Pattern, Scale
from tasks.tts.corpus import Corpus
from tasks.tts.fastspeech import BINS, FastSpeech
from tasks.tts.settings import FASTSPEECH, TRANSFORMER
from tasks.tts.synthesiser import Synthesiser
from tasks.tts.text import TOKENS
from tasks.tts.transformer_tts import TransformerTTS
from tests.tasks.tts_cases import (
    ALIGNED,
    FAST,
    LONG,
    MODELS,
    PLAIN,
    SHORT,
    WHOLE,
    decoder_only,
    fastspeech,
    slots,
    transformer,
)


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Synthesiser:
    made = MODELS[request.param]()
    # Batch norms with statistics of their own, as after training.
    for module in made.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)  # type: ignore[arg-type]
    return made.eval()


def without(batch: Batch, name: str, value: Tensor) -> Batch:
    return {**batch, name: value}


# Geometry


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def attention(dim: int) -> int:
    return 4 * (dim * dim + dim)


def convolution(inputs: int, outputs: int, kernel: int) -> int:
    return inputs * outputs * kernel + outputs


def test_parameters_of_fastspeech_2() -> None:
    """By hand from the published geometry, with the characters of this task and 80 bands.

    fairseq states 41 million, for phonemes.
    """
    block = attention(256) + 2 * 512 + convolution(256, 1024, 9) + convolution(1024, 256, 9)
    predictor = 2 * convolution(256, 256, 3) + 2 * 512 + 257
    expected = TOKENS * 256 + 2 + 8 * block + 3 * predictor + 2 * BINS * 256 + 256 * 80 + 80
    with torch.device("meta"):
        model = FastSpeech(
            slots(Pattern.NONCAUSAL_SELF),
            FASTSPEECH[Scale.PAPER][0],
            bands=80,
            longest_text=200,
            longest_sound=900,
        )
    assert count(model) == expected
    assert round(count(model) / 1e6) == 41


def test_parameters_of_transformer_tts() -> None:
    """By hand; fairseq states 54 million, for phonemes."""
    dim, hidden, wide = 512, 2048, 4 * 80
    feed_forward = 2 * dim * hidden + hidden + dim
    norm = 2 * dim
    encoder = 6 * (attention(dim) + feed_forward + 2 * norm) + norm
    decoder = 6 * (2 * attention(dim) + feed_forward + 3 * norm) + norm
    convolutions = 3 * (convolution(dim, dim, 5) + norm) + dim * dim + dim
    prenet = wide * 256 + 256 + 256 * 256 + 256 + 256 * dim + dim
    ends = convolution(wide, dim, 5) + norm + convolution(dim, wide, 5) + 2 * wide
    postnet = ends + 3 * (convolution(dim, dim, 5) + norm)
    readouts = dim * wide + wide + dim + 1
    expected = TOKENS * dim + 2 + encoder + decoder + convolutions + prenet + postnet + readouts
    with torch.device("meta"):
        model = TransformerTTS(
            slots(Pattern.CAUSAL_CROSS),
            TRANSFORMER[Scale.PAPER][0],
            bands=80,
            longest_text=200,
            longest_sound=900,
        )
    assert count(model) == expected
    assert round(count(model) / 1e6) == 54


def test_recipe_at_paper_scale_is_the_published_one() -> None:
    recipe = FASTSPEECH[Scale.PAPER][1]
    assert recipe is TRANSFORMER[Scale.PAPER][1]
    assert (recipe.steps, recipe.batch_size * recipe.accumulate) == (200_000, 48)
    assert (recipe.schedule, recipe.warmup_steps, recipe.learning_rate) == (
        "inverse-sqrt",
        4000,
        5e-4,
    )
    assert recipe.gradient_clip == 5.0


@pytest.mark.parametrize(
    ("build", "pattern", "candidates"),
    [
        (lambda p, c: fastspeech(FAST, c), Pattern.NONCAUSAL_SELF, 2),
        (lambda p, c: decoder_only(PLAIN, c), Pattern.CAUSAL_SELF, 1),
        *(
            (lambda p, c: transformer(PLAIN, p, c), p, 1)
            for p in list(Pattern)
            if p != "noncausal-cross"
        ),
    ],
)
def test_slots_are_those_of_the_pattern(
    build: Callable[[Pattern, type[Attention]], nn.Module], pattern: Pattern, candidates: int
) -> None:
    model = build(pattern, ExactSoftmaxAttention)
    found = [m for m in model.modules() if isinstance(m, ExactSoftmaxAttention)]
    assert len(found) == candidates
    assert {module.pattern for module in found} == {pattern}


# What an output may see


def test_rows_of_a_batch_are_independent(model: Synthesiser) -> None:
    together, alone = (Corpus.batch(rows, model.group) for rows in ([SHORT, LONG], [SHORT]))
    with torch.no_grad():
        one, other = model.guided(together), model.guided(alone)
        torch.testing.assert_close(one[0, :21], other[0, :21])
        assert model.free(together)[0].shape == model.free(alone)[0].shape
        torch.testing.assert_close(model.free(together)[0], model.free(alone)[0])


def test_frames_depend_on_the_text(model: Synthesiser) -> None:
    batch = Corpus.batch([SHORT], model.group)
    changed = batch["tokens"].clone()
    changed[0, 1] += 1
    with torch.no_grad():
        moved = model.guided(batch) - model.guided(without(batch, "tokens", changed))
    assert moved.abs().max() > 1e-4


@pytest.mark.parametrize("name", ["transformer-aligned", "decoder-only-aligned"])
def test_a_group_sees_the_groups_before_it_only(name: str) -> None:
    model = MODELS[name]().eval()
    batch = Corpus.batch([LONG], model.group)
    changed = batch["frames"].clone()
    changed[0, 20:24] += 1
    with torch.no_grad():
        moved = (model.guided(batch) - model.guided(without(batch, "frames", changed))).abs()
    assert not moved[0, :24].any()
    assert moved[0, 24:28].max() > 0


@pytest.mark.parametrize(
    "name", ["transformer", "transformer-aligned", "decoder-only", "decoder-only-aligned"]
)
def test_free_synthesis_is_guided_by_its_own_frames(name: str) -> None:
    """Feeding what was made gives it again: decoding is training's pass, step by step."""
    model = MODELS[name]().eval()
    if name in ("transformer", "decoder-only"):
        nn.init.constant_(model.stop.bias, -100.0)  # type: ignore[union-attr]
        model.postnet = None  # type: ignore[assignment]
    batch = Corpus.batch([LONG], model.group)
    with torch.no_grad():
        made = model.free(batch)[0]
        again = model.guided(without(batch, "frames", made[None]))
    torch.testing.assert_close(again[0], made)


def test_the_stop_ends_a_sound() -> None:
    model = transformer(WHOLE).eval()
    batch = Corpus.batch([SHORT, LONG], model.group)
    assert model.stop is not None
    with torch.no_grad():
        model.stop.weight.zero_()
        model.stop.bias.fill_(1.0)
        assert [len(row) for row in model.free(batch)] == [4, 4]
        model.stop.bias.fill_(-1.0)
        assert [len(row) for row in model.free(batch)] == [40, 40]


def test_without_a_stop_the_length_is_the_recordings() -> None:
    for model in (transformer(ALIGNED), decoder_only(ALIGNED)):
        with torch.no_grad():
            made = model.eval().free(Corpus.batch([SHORT, LONG], model.group))
        assert [len(row) for row in made] == [21, 40]


def test_none_in_fastspeech_leaves_the_character_alone() -> None:
    """With pointwise feed-forward layers no token sees another."""
    size = replace(FAST, kernel=1, pre_norm=True, variances=False)
    batch = Corpus.batch([SHORT], size.group)
    changed = batch["tokens"].clone()
    changed[0, 1] += 1
    with torch.no_grad():
        moved = {
            candidate: (
                (model := fastspeech(size, candidate).eval()).guided(batch)
                - model.guided(without(batch, "tokens", changed))
            )
            .abs()
            .amax(-1)[0]
            > 0
            for candidate in (NoAttention, SoftmaxAttention)
        }
    own = torch.repeat_interleave(torch.arange(6), batch["durations"][0]).repeat_interleave(2) == 1
    assert torch.equal(moved[NoAttention], own)
    assert moved[SoftmaxAttention].all()


# Losses


def test_losses_fall(model: Synthesiser) -> None:
    batch = Corpus.batch([SHORT, LONG], model.group)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        loss = model.loss(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_every_parameter_learns(model: Synthesiser) -> None:
    batch = Corpus.batch([SHORT, LONG], model.group)
    model.loss(batch).backward()
    still = [n for n, p in model.named_parameters() if p.grad is None]
    assert not still


def test_padding_is_no_part_of_the_loss(model: Synthesiser) -> None:
    batch = Corpus.batch([SHORT, LONG], model.group)
    frames = batch["frames"].clone()
    frames[0, 32:] = 100.0
    assert model.loss(without(batch, "frames", frames)).item() == model.loss(batch).item()


def test_predictors_are_held_to_durations_pitch_and_energy() -> None:
    model = fastspeech().eval()
    batch = Corpus.batch([SHORT], model.group)
    with torch.no_grad():
        before = model.loss(batch)
        for name in ("durations", "pitch", "energy"):
            moved = batch[name] + (0 if name == "durations" else 1)
            if name == "durations":
                moved = moved.roll(1, dims=1)
            assert model.loss(without(batch, name, moved)) != before, name


# Parts
