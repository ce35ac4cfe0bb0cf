"""The build of the transcribed speech: texts, silences, groups."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.data.build import asterisk_prompts
from tasks.data.build.asterisk_prompts import normalised, trimmed


@pytest.mark.parametrize(
    ("transcript", "text"),
    [
        ("Press 5 to leave a message", "press five to leave a message"),
        ("One moment, please.", "one moment, please"),
        ("...to lock, or unlock the conference.", "to lock, or unlock the conference"),
        ("To leave a message: press star;  I'm  here!", "to leave a message, press star, i'm here"),
        ("Invalid! Mailbox?", "invalid. mailbox?"),
        ("To re-record it, call-forward.", "to rerecord it, call forward"),
        ("dash [-]", "dash"),
        ("[sound of monkeys screaming]", ""),
        ("fourtieth", "fortieth"),
    ],
)
def test_transcripts_are_normalised(transcript: str, text: str) -> None:
    assert normalised(transcript) == text


@pytest.mark.parametrize(
    ("transcript", "reason"),
    [
        ("A.M.", "spelled"),
        ("3D audio disabled", "spelled"),
        ("Use the 7 key for Q.", "spelled"),
        ("q", "spelled"),
        ("press # to exit", "symbol"),
        ("Dial 500", "digits"),
        ("(1 second of silence)", "no speech"),
        ("I can't, it's a 5.", ""),
    ],
)
def test_unclear_transcripts_are_left_out(transcript: str, reason: str) -> None:
    clip = asterisk_prompts._Clip(normalised(transcript), np.zeros(8000, np.int16))
    objection = asterisk_prompts._objection(transcript, clip)
    assert reason in objection
    assert bool(objection) == bool(reason)


def test_silence_is_cut() -> None:
    sound = np.zeros(8000, np.int16)
    sound[3000:5000] = 10_000
    sound[5600] = 2  # far below the limit
    kept = trimmed(sound)
    # Whole frames of 80 samples from 3000 // 80 = 37 to 62, with two more on each side.
    assert len(kept) == (63 + 2 - (37 - 2)) * 80
    assert np.flatnonzero(kept)[0] == 3000 - 35 * 80


def test_clips_that_share_words_are_one_group() -> None:
    texts = {
        "a": "please enter your agent number now",
        "b": "to go on, please enter your agent number",
        "c": "goodbye",
        "d": "goodbye?",
        "e": "enter your agent number",
    }
    clips = {
        name: asterisk_prompts._Clip(text, np.zeros(1, np.int16)) for name, text in texts.items()
    }
    assert asterisk_prompts.groups(clips) == [["a", "b"], ["c", "d"]]
