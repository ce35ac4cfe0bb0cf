"""Tracks: their order, their titles, and the words that name them."""

from __future__ import annotations

import itertools

import pytest

from cab.errors import UsageError
from cab.info import Scale
from cab.patterns import Pattern
from cab.track import DEVICES, Setting, Track

EVERY = [
    Track(pattern.value, scale.value, device)
    for scale, device, pattern in itertools.product(Scale, DEVICES, Pattern)
]


def test_order_is_by_scale_then_device_then_pattern() -> None:
    mixed = [*EVERY[1::2], *EVERY[::2]]
    assert sorted(mixed) == EVERY
    assert sorted({track.setting for track in EVERY}) == [
        Setting(scale.value, device) for scale in Scale for device in DEVICES
    ]


def test_unknown_names_come_last() -> None:
    new = Track("diagonal", "huge", "tpu")
    assert sorted([new, *EVERY])[-1] == new
    assert max(EVERY[0], Track("diagonal", EVERY[0].scale, EVERY[0].device)).pattern == "diagonal"


@pytest.mark.parametrize("track", EVERY, ids=str)
def test_its_words_name_it(track: Track) -> None:
    assert Track.parse(str(track)) == track
    assert track.setting.track(track.pattern) == track
    assert Track(**track.about) == track
    assert track.title == f"{track.pattern} ({track.scale}, {track.device})"


def test_the_pattern_may_be_abbreviated() -> None:
    assert Track.parse("CC small cpu") == Track("causal-cross", "small", "cpu")


@pytest.mark.parametrize(
    "words", ["", "causal-cross", "causal-cross small cpu 0", "up small cpu", "CC big cpu",
              "CC small tpu"],
)  # fmt: skip
def test_what_is_no_track_is_refused(words: str) -> None:
    with pytest.raises(UsageError):
        Track.parse(words)
