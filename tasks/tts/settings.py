"""Backbones and recipes at every scale.

At ``paper`` they are those that CAB trained, from fairseq's example for LJSpeech: FastSpeech 2 and
Transformer-TTS as published, Adam with the inverse square root of the step after 4,000 steps, 48
utterances a step as 8 batches of 6, 200,000 steps. The decoder-only backbone, which CAB has not,
takes the width and recipe of Transformer-TTS and as many layers as both its stacks have.

At the smaller scales text and sound start aligned and the length of the sound is given, the
prenet is narrow and a group long: otherwise the frames before a group say so much of it, and
alignment takes so long to form, that no slot matters within a short run. FastSpeech 2 has pointwise
feed-forward layers there, since convolutions would stand in for attention.
"""

from __future__ import annotations

from dataclasses import replace

from cab import Recipe, Scale
from tasks.tts.autoregressive import AutoregressiveSize
from tasks.tts.fastspeech import FastSpeechSize

_ADAM = Recipe(steps=0, batch_size=16, learning_rate=3e-3)

_AVERAGING = 0.98
"""Decay of averaged weights, in place of CAB's mean of the last five checkpoints. Scores of free
synthesis vary much from step to step, those of averaged weights little"""

FASTSPEECH: dict[Scale, tuple[FastSpeechSize, Recipe]] = {
    Scale.TINY: (
        FastSpeechSize(
            dim=32,
            heads=2,
            layers=1,
            hidden=128,
            kernel=1,
            dropout=0.1,
            predictor=16,
            predictor_dropout=0.1,
            group=4,
            variances=False,
            pre_norm=True,
        ),
        replace(_ADAM, steps=120, batch_size=8, learning_rate=4e-3, evaluations=2),
    ),
    Scale.SMALL: (
        FastSpeechSize(
            dim=64,
            heads=4,
            layers=2,
            hidden=256,
            kernel=1,
            dropout=0.1,
            predictor=32,
            predictor_dropout=0.1,
            group=2,
            variances=False,
            pre_norm=True,
            position_base=300.0,
        ),
        replace(_ADAM, steps=900, learning_rate=4e-3, averaging=_AVERAGING),
    ),
    Scale.BASE: (
        FastSpeechSize(
            dim=128,
            heads=4,
            layers=4,
            hidden=512,
            kernel=1,
            dropout=0.2,
            predictor=128,
            predictor_dropout=0.5,
            variances=True,
            pre_norm=True,
            position_base=300.0,
        ),
        replace(_ADAM, steps=4000, batch_size=32, learning_rate=2e-3, evaluations=10),
    ),
    Scale.PAPER: (
        FastSpeechSize(
            dim=256,
            heads=2,
            layers=4,
            hidden=1024,
            kernel=9,
            dropout=0.1,
            predictor=256,
            predictor_dropout=0.5,
        ),
        Recipe(
            steps=200_000,
            batch_size=6,
            accumulate=8,
            learning_rate=5e-4,
            warmup_steps=4000,
            betas=(0.9, 0.999),
            weight_decay=0.0,
            gradient_clip=5.0,
            schedule="inverse-sqrt",
            evaluations=20,
        ),
    ),
}

TRANSFORMER: dict[Scale, tuple[AutoregressiveSize, Recipe]] = {
    Scale.TINY: (
        AutoregressiveSize(
            dim=32,
            heads=2,
            layers=1,
            dropout=0.1,
            group=8,
            prenet=(16,),
            aligned=True,
            position_base=300.0,
        ),
        replace(_ADAM, steps=120, batch_size=8, evaluations=2),
    ),
    Scale.SMALL: (
        AutoregressiveSize(
            dim=64,
            heads=4,
            layers=2,
            dropout=0.1,
            group=8,
            prenet=(16,),
            aligned=True,
            position_base=300.0,
        ),
        replace(_ADAM, steps=600),
    ),
    Scale.BASE: (
        AutoregressiveSize(
            dim=128,
            heads=4,
            layers=4,
            dropout=0.2,
            group=8,
            prenet=(64, 16),
            convolutions=3,
            postnet=5,
            aligned=True,
            position_base=300.0,
        ),
        replace(_ADAM, steps=4000, batch_size=32, learning_rate=1e-3, evaluations=10),
    ),
    Scale.PAPER: (
        AutoregressiveSize(
            dim=512,
            heads=4,
            layers=6,
            dropout=0.1,
            group=4,
            prenet=(256, 256),
            convolutions=3,
            postnet=5,
            stop=True,
        ),
        FASTSPEECH[Scale.PAPER][1],
    ),
}

_DEPTHS = {Scale.TINY: 2, Scale.SMALL: 3, Scale.BASE: 6, Scale.PAPER: 12}

DECODER_ONLY: dict[Scale, tuple[AutoregressiveSize, Recipe]] = {
    scale: (replace(size, layers=_DEPTHS[scale], convolutions=0), recipe)
    for scale, (size, recipe) in TRANSFORMER.items()
}
DECODER_ONLY[Scale.SMALL] = (
    DECODER_ONLY[Scale.SMALL][0],
    replace(DECODER_ONLY[Scale.SMALL][1], steps=1200, averaging=_AVERAGING),
)

LIMITS: dict[Scale, dict[str, int] | None] = {
    Scale.TINY: {"train": 120, "validation": 16, "test": 16},
    Scale.SMALL: {"train": 400, "validation": 40, "test": 50},
    Scale.BASE: {"train": 4000, "validation": 100, "test": 200},
    Scale.PAPER: None,
}
"""Utterances of each split that are read of a folder"""

HEARD: dict[Scale, int | None] = {
    Scale.TINY: 12,
    Scale.SMALL: None,
    Scale.BASE: None,
    Scale.PAPER: None,
}
"""Utterances of a split that are synthesised freely; None: all"""
