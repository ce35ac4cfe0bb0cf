"""The task ``tts-transformer``: the self-attention slots of Transformer-TTS.

Its cross attention is a slot of the task ``tts``. Here the encoder's self attention competes with a
decoder that sees all of the text, and the decoder's with positions that say where it is and a
prenet that says what came before: whether a slot tells attention from none is read off the numbers.
"""

from __future__ import annotations

from cab import Metric, Pattern, Scale, TaskInfo, register_task
from tasks.tts.speech_task import SpeechTask
from tasks.tts.transformer_tts import TransformerTTS


@register_task(
    TaskInfo(
        id="tts-transformer",
        title="Text to speech with Transformer-TTS",
        description=(
            "Log-mel spectrograms of one speaker from characters by an encoder-decoder, as in CAB: "
            "candidates in the encoder's or in the decoder's self attention. Its cross attention "
            "is a slot of the task tts. Embedded are telephone prompts of 8 kHz, 11 minutes in all."
        ),
        backbones={
            Pattern.NONCAUSAL_SELF: "transformer-tts",
            Pattern.CAUSAL_SELF: "transformer-tts",
        },
        metrics=(
            Metric(
                name="l1",
                unit="sd",
                higher_is_better=False,
                help="mean absolute error of log-mel bands, in standard deviations of a band, "
                "guided as in training by the recording's frames before each group",
            ),
            Metric(
                name="mcd",
                unit="ln power",
                higher_is_better=False,
                help="mel cepstral distortion of free synthesis: root mean square difference of 13 "
                "cepstra of log-mel powers along the best time warping, per step of the path; of "
                "the model's log-mels, not of a vocoder's waveform",
            ),
            Metric(
                name="msd",
                unit="ln power",
                higher_is_better=False,
                help="mel spectral distortion: the same of the log-mel powers themselves",
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE, Scale.PAPER),
        dataset="asterisk-prompts",
        data_dir=(
            "LJSpeech-1.1 as unpacked: metadata.csv (id|transcript|normalised transcript) and "
            "wavs/ID.wav (22,050 Hz, mono). LJ001 and LJ002 are the test split, LJ003 validation, "
            "as in fairseq. Below scale paper the first clips of a split are read (tiny 120, small "
            "400, base 4000 for training)"
        ),
        differences="characters for phonemes; distortions of the model's log-mels, where CAB "
        "synthesises by Griffin and Lim first; the checkpoint of the best validation l1, not the "
        "mean of the last five; feed-forward layers with GELU. Below scale paper the length of "
        "the sound is given and text positions are counted at its rate",
        retired={
            Pattern.NONCAUSAL_SELF: "the decoder sees all of the text anyway: l1 of softmax 0.5812 "
            "± 0.0047, of none 0.5819 ± 0.0085, a gap of 0.2 spreads at scale small, three seeds "
            "on a CPU. The task tts measures this pattern on these data",
            Pattern.CAUSAL_SELF: "positions say where the decoder is, a prenet what came before: "
            "l1 of softmax 0.5812 ± 0.0047, of none 0.581 ± 0.010, a gap of 0.0 spreads at scale "
            "small, three seeds on a CPU. The task tts measures this pattern on these data",
        },
        paper="Li et al., Neural Speech Synthesis with Transformer Network",
        url="https://arxiv.org/abs/1809.08895",
    )
)
class TransformerTextToSpeech(SpeechTask):
    """Transformer-TTS for both patterns."""

    models = {  # noqa: RUF012 - annotated in the base class
        Pattern.NONCAUSAL_SELF: TransformerTTS,
        Pattern.CAUSAL_SELF: TransformerTTS,
    }
