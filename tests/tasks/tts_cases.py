"""Small speech backbones, and two utterances for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from attentions.softmax import SoftmaxAttention
from cab import Attention, Pattern, Slots
from tasks.tts.autoregressive import AutoregressiveSize
from tasks.tts.corpus import Utterance
from tasks.tts.decoder_only import DecoderOnly
from tasks.tts.fastspeech import FastSpeech, FastSpeechSize
from tasks.tts.synthesiser import Synthesiser
from tasks.tts.text import tokens
from tasks.tts.transformer_tts import TransformerTTS

BANDS, TEXT, SOUND = 5, 12, 40

FAST = FastSpeechSize(
    dim=16,
    heads=2,
    layers=1,
    hidden=24,
    kernel=3,
    dropout=0.1,
    predictor=8,
    predictor_dropout=0.1,
    group=2,
)
PLAIN = AutoregressiveSize(dim=16, heads=2, layers=1, dropout=0.1, group=4, prenet=(12, 6))
WHOLE = replace(PLAIN, convolutions=2, postnet=2, stop=True)
ALIGNED = replace(PLAIN, aligned=True)


def slots(pattern: Pattern, candidate: type[Attention] = SoftmaxAttention) -> Slots:
    return Slots(pattern, candidate, SoftmaxAttention)


def fastspeech(
    size: FastSpeechSize = FAST, candidate: type[Attention] = SoftmaxAttention
) -> FastSpeech:
    torch.manual_seed(0)
    return FastSpeech(
        slots(Pattern.NONCAUSAL_SELF, candidate),
        size,
        bands=BANDS,
        longest_text=TEXT,
        longest_sound=SOUND,
    )


def transformer(
    size: AutoregressiveSize,
    pattern: Pattern = Pattern.CAUSAL_CROSS,
    candidate: type[Attention] = SoftmaxAttention,
) -> TransformerTTS:
    torch.manual_seed(0)
    return TransformerTTS(
        slots(pattern, candidate), size, bands=BANDS, longest_text=TEXT, longest_sound=SOUND
    )


def decoder_only(
    size: AutoregressiveSize, candidate: type[Attention] = SoftmaxAttention
) -> DecoderOnly:
    torch.manual_seed(0)
    return DecoderOnly(
        slots(Pattern.CAUSAL_SELF, candidate),
        size,
        bands=BANDS,
        longest_text=TEXT,
        longest_sound=SOUND,
    )


MODELS: dict[str, Callable[[], Synthesiser]] = {
    "fastspeech": fastspeech,
    "fastspeech-pointwise": lambda: fastspeech(
        replace(FAST, kernel=1, pre_norm=True, variances=False)
    ),
    "transformer": lambda: transformer(WHOLE),
    "transformer-aligned": lambda: transformer(ALIGNED),
    "decoder-only": lambda: decoder_only(replace(WHOLE, convolutions=0)),
    "decoder-only-aligned": lambda: decoder_only(ALIGNED),
}


def utterance(text: str, frames: int, seed: int) -> Utterance:
    """Random frames; every character but the last as long as the rest allows."""
    generator = torch.Generator().manual_seed(seed)
    length = len(text) + 1
    durations = torch.full((length,), frames // len(text))
    durations[-1] = 0
    durations[-2] += frames - int(durations.sum())
    return Utterance(
        "one",
        text,
        torch.tensor(tokens(text)),
        torch.randn(frames, BANDS, generator=generator),
        durations,
        torch.randn(length, generator=generator),
        torch.randn(length, generator=generator),
    )


SHORT, LONG = utterance("hello", 21, 1), utterance("good bye, me", 40, 2)
