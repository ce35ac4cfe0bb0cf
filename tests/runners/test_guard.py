"""A mechanism that is wrong only in a task's own model ends the cell as invalid."""

import re

import pytest

from runners.outcome import InvalidError
from tests.runners import cheats
from tests.runners.guarded import model_of, run_guarded, short_task

LATER = "later (tokens|inputs)|cutting"


def complaint(task, pattern, candidate, **recipe):
    task = short_task(task, pattern, **recipe)
    with pytest.raises(InvalidError) as caught:
        run_guarded(task, *model_of(task, candidate))
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("LeaksAtItsShapes", f"the built model.*({LATER})"),
        ("LeaksInTraining", f"the built model.*train mode.*({LATER})"),
        ("LeaksWithGraph", f"the built model.*train mode.*({LATER})"),
        ("LeaksOnRealNumbers", f"the built model.*({LATER})"),
        ("LeaksInLaterLayers", f"the built model, layer 1.*({LATER})"),
        ("LeaksWhenEvaluated", f"the built model.*eval mode.*(alone|{LATER})"),
        ("SeesItsBlock", f"the built model.*({LATER})"),
        ("CountsTokens", "the built model.*cutting off tokens from"),
        ("MixesRows", "the built model.*eval mode.*(rows|differs alone)"),
        ("PassesOnWhatItSaw", "the built model.*(again|rows|later|cutting)"),
        ("ReadsTheCaller", "the built model.*(again|rows|inputs|cutting)"),
        ("GarblesWhenAsked", f"the built model.*(again|rows|{LATER})"),
        ("HidesParameters", r"1000 numbers .* learn"),
        ("LearnsInBuffer", "1000 numbers .* learn"),
        ("GrowsLater", "1000 numbers .* learn"),
        ("RegistersLater", "had 0 parameters .* has [12]000 now"),
    ],
)
def test_a_cheat_in_a_built_model(name, what):
    said = complaint("language-modeling", "CS", getattr(cheats, name))
    assert re.search(what, said), said


@pytest.mark.parametrize(
    ("name", "task", "pattern", "what"),
    [
        ("LeaksAfterTraining", "language-modeling", "CS", f"trained.*({LATER})"),
        ("LeaksAfterTraining", "state-tracking", "CS", f"trained.*({LATER})"),
        ("RegistersMuchLater", "state-tracking", "CS", "had 0 parameters .* has 2000 now"),
        (
            "LeaksOnce",
            "language-modeling",
            "CS",
            f"trained.*(the same call again differs|rows|alone|{LATER})",
        ),
        ("WrongAfterTraining", "masked-lm", "NS", "trained.*the mechanism's own reference"),
        ("WrongAfterTraining", "forecasting", "NC", "trained.*the mechanism's own reference"),
    ],
)
def test_a_cheat_in_a_trained_model(name, task, pattern, what):
    said = complaint(task, pattern, getattr(cheats, name), steps=25)
    assert re.search(what, said), said


@pytest.mark.parametrize(
    ("task", "pattern"),
    [
        ("summarization", "CC"),
        ("summarization", "CS"),
        ("summarization-docstrings", "CC"),
        ("tts", "CC"),
        ("tts", "CS"),
        ("tts-transformer", "CS"),
        ("scanpath", "CC"),
        ("associative-recall", "CS"),
        ("in-context-regression", "CS"),
        ("in-context-linear-regression", "CS"),
        ("test-time-regression", "CC"),
        ("test-time-regression-trained", "CS"),
        ("passkey", "CS"),
    ],
)
def test_a_leak_in_any_causal_task(task, pattern):
    """Queries and keys of every one of them; the places and the size are in the message."""
    said = complaint(task, pattern, cheats.LeaksWhere)
    assert re.search(LATER, said), said
    assert re.search(r"by \d\.\de[+-]\d+ of its size \(at most .*\) at row \d+, head \d+", said)


@pytest.mark.parametrize("pattern", ["CS", "CC"])
def test_a_leak_under_autocast_alone(pattern):
    said = complaint("summarization", pattern, cheats.LeaksInBfloat16, precision="bfloat16")
    assert re.search(LATER, said), said
    task = short_task("summarization", pattern)
    run_guarded(task, *model_of(task, cheats.LeaksInBfloat16))


@pytest.mark.parametrize(
    ("task", "pattern"),
    [("forecasting", "NC"), ("super-resolution", "NS"), ("point-completion", "NC"), ("tts", "NS")],
)
def test_mixed_rows_where_nothing_is_causal(task, pattern):
    said = complaint(task, pattern, cheats.MixesRows)
    assert re.search("rows|differs alone", said), said


def test_a_leak_is_not_excused_by_sensitivity():
    """What garbles every call but the one it had is not taken for badly conditioned."""
    said = complaint("state-tracking", "CS", cheats.GarblesWhenAsked)
    assert "by " in said
