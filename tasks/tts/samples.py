"""What a model makes of a test text, to be looked at and listened to."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cab import Artifact
from tasks.artifacts import pictures
from tasks.evaluation import device_of
from tasks.tts.corpus import Corpus, Utterance
from tasks.tts.synthesiser import Synthesiser
from tasks.tts.text import END

_LONGEST_SOUND_S = 5.0
"""Of an audio sample: one of 22,050 Hz must fit into an artifact"""

_ALIGNMENT_PIXELS = 480
"""The longer side of the picture, about"""

_COLUMNS = 40
"""Most positions of the decoder whose gradients are taken"""


def samples(model: Synthesiser, corpus: Corpus, utterance: Utterance) -> list[Artifact]:
    """A spectrogram, its sound and the alignment of one utterance."""
    device = device_of(model)
    batch = {
        name: tensor.to(device) for name, tensor in corpus.batch([utterance], model.group).items()
    }
    made = corpus.log_mel(model.free(batch)[0])
    wanted = corpus.log_mel(utterance.frames)
    aligned = alignment(model, batch).T
    most = int(_LONGEST_SOUND_S * corpus.spectrogram.rate)
    text = f"“{utterance.text}” ({utterance.id})"
    return [
        pictures.image(
            "spectrogram",
            f"{text}: log-mel spectrogram of the recording above, of the model, from the text "
            "alone or as far as the task says, below; time to the right, low bands at the bottom.",
            _spectrograms(wanted, made),
            zoom=3 if len(wanted) < 400 else 1,
        ),
        pictures.sound(
            "speech",
            f"{text}: the model's spectrogram made sound by 32 rounds of Griffin and Lim.",
            corpus.spectrogram.sound(made)[:most],
            corpus.spectrogram.rate,
        ),
        pictures.image(
            "alignment",
            f"{text}: how strongly the output at a time (to the right) depends on a character "
            "(the first at the bottom): norm of the gradient with respect to its embedding, each "
            "column by its largest. It exists for every mechanism; where attention follows the "
            "text it is a rising diagonal.",
            pictures.heat_map(aligned),
            zoom=max(2, _ALIGNMENT_PIXELS // max(aligned.shape)),
        ),
    ]


def alignment(model: Synthesiser, batch: dict[str, Tensor]) -> NDArray[np.float64]:
    """(columns, L - 1) norms of d output / d embedding of the characters of one utterance.

    An output is the group's sum of squares, at up to `_COLUMNS` positions spread evenly; each
    row is divided by its largest. The end of the text is left out. What does not depend on the text
    at all, as a decoder without cross attention, has zeros.
    """
    seen: list[Tensor] = []

    def keep(_: object, __: object, output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[-1]

    hook = model.embedding.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            frames = model.guided(batch)[0].float()
            groups = frames.unflatten(0, (-1, model.group)).flatten(1)
            count = min(int(batch["groups"][0]), len(groups))
            chosen = np.unique(np.linspace(0, count - 1, _COLUMNS).round().astype(int))
            norms = []
            for i in chosen.tolist():
                slope = torch.autograd.grad(
                    groups[i].square().sum(), seen[0], retain_graph=True, materialize_grads=True
                )
                norms.append(slope[0][0].norm(dim=-1))
    finally:
        hook.remove()
    characters = batch["tokens"][0] > END
    found = torch.stack(norms)[:, characters].double().cpu().numpy()
    largest = found.max(1, keepdims=True)
    return found / np.where(largest > 0, largest, 1.0)


def _spectrograms(wanted: NDArray[np.float64], made: NDArray[np.float64]) -> NDArray[np.uint8]:
    """One above the other in the same greys, with a white line between."""
    low, high = float(wanted.min()), float(wanted.max())
    wide = max(len(wanted), len(made))

    def grey(clip: NDArray[np.float64]) -> NDArray[np.uint8]:
        shades = np.rint(255 * np.clip((clip - low) / (high - low), 0, 1)).astype(np.uint8)
        return np.flipud(np.pad(shades, ((0, wide - len(clip)), (0, 0))).T)

    return pictures.grid([[grey(wanted)], [grey(made)]])
