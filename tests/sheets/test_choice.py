"""Which entries a reader sees: one choice for the terminal and the dashboard."""

from __future__ import annotations

import pytest

from cab.label import Label
from cab.sheets.choice import ALL, Shown

OWN, REFERENCE = Label.SELF_REPORTED.value, Label.REFERENCE.value


def test_nothing_chosen_shows_everything() -> None:
    assert ALL.keeps("lla", "faithful")
    assert not ALL.hides


@pytest.mark.parametrize(
    "choice", [Shown(grades=("adapted",)), Shown(families=("linear",)), Shown(labels=(OWN,))]
)
def test_controls_stay(choice: Shown) -> None:
    assert choice.hides
    for control in ("softmax", "none"):
        assert choice.keeps(control, "faithful", REFERENCE)
    assert not choice.keeps("lla", "faithful", REFERENCE)


def test_chosen_attentions_are_all_there_is() -> None:
    choice = Shown(attentions=("lla",))
    assert choice.keeps("lla", "faithful")
    assert not choice.keeps("softmax", "faithful")


def test_an_entry_of_the_family_is_kept() -> None:
    choice = Shown(families=("linear",))
    assert choice.keeps("linear-elu", "faithful")
    assert not choice.keeps("not-registered-here", "faithful")


def test_one_label_of_several_is_enough() -> None:
    assert Shown(labels=(OWN,)).keeps("lla", "faithful", f"{OWN}, {REFERENCE}")


def test_all_that_was_chosen_must_hold() -> None:
    choice = Shown(grades=("faithful",), families=("linear",))
    assert choice.keeps("linear-elu", "faithful")
    assert not choice.keeps("linear-elu", "adapted")
