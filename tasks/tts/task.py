"""The task ``tts``: for each pattern the backbone whose slots the speech goes through."""

from __future__ import annotations

from cab import Metric, Pattern, Scale, TaskInfo, register_task
from tasks.tts.decoder_only import DecoderOnly
from tasks.tts.fastspeech import FastSpeech
from tasks.tts.speech_task import SpeechTask
from tasks.tts.transformer_tts import TransformerTTS


@register_task(
    TaskInfo(
        id="tts",
        title="Text to speech",
        description=(
            "Log-mel spectrograms of one speaker from characters. Embedded are telephone prompts "
            "of 8 kHz, 11 minutes in all. Each pattern has the backbone that relies on it: "
            "FastSpeech 2 (noncausal self), where attention tells a sound what stands around it; "
            "a decoder-only model (causal self), which reads the text through it; Transformer-TTS "
            "(causal cross), which aligns text and sound by it."
        ),
        backbones={
            Pattern.NONCAUSAL_SELF: "fastspeech-2",
            Pattern.CAUSAL_SELF: "decoder-only",
            Pattern.CAUSAL_CROSS: "transformer-tts",
        },
        metrics=(
            Metric(
                name="l1",
                unit="sd",
                higher_is_better=False,
                help="mean absolute error of log-mel bands, in standard deviations of a band, "
                "guided as in training: by the recording's frames before each group, or by its "
                "durations (FastSpeech 2)",
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
            "as in fairseq. FastSpeech 2 also needs durations.csv (id|samples of each character), "
            "which `python -m tasks.tts.align FOLDER` writes once. Below scale paper the first "
            "clips of a split are read (tiny 120, small 400, base 4000 for training)"
        ),
        differences="characters for phonemes; distortions of the model's log-mels, where CAB "
        "synthesises by Griffin and Lim first; the checkpoint of the best validation l1, not the "
        "mean of the last five; feed-forward layers of Transformer-TTS with GELU. Below scale "
        "paper FastSpeech 2 has pointwise feed-forward layers, and the autoregressive backbones "
        "are given the length of the sound and count text positions at its rate. The decoder-only "
        "backbone is not CAB's",
        paper="Ren et al., FastSpeech 2; Li et al., Neural Speech Synthesis with Transformer "
        "Network",
        url="https://arxiv.org/abs/2006.04558",
    )
)
class TextToSpeech(SpeechTask):
    """One backbone for each pattern."""

    models = {  # noqa: RUF012 - annotated in the base class
        Pattern.NONCAUSAL_SELF: FastSpeech,
        Pattern.CAUSAL_SELF: DecoderOnly,
        Pattern.CAUSAL_CROSS: TransformerTTS,
    }
