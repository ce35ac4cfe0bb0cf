"""Axes and labels of the report's drawings."""

import pytest

from cab.report.svg import Axis, Drawing, spread


def test_places_run_from_start_to_end():
    axis = Axis(10, 1000, 0, 100, log=True)
    assert [axis.place(v) for v in (10, 100, 1000)] == pytest.approx([0, 50, 100])
    assert axis.place(1e9) == 100  # what lies beyond stands at the end
    assert Axis(0, 4, 100, 0).place(1) == 75


def test_ticks_are_round_and_inside():
    assert Axis(-0.11, 0.32, 0, 1).ticks() == pytest.approx([-0.1, 0, 0.1, 0.2, 0.3])
    assert Axis(3, 60, 0, 1, log=True).ticks() == [5, 10, 20, 50]
    assert Axis(1000, 9000, 0, 1, log=True, binary=True).ticks() == [1024, 2048, 4096, 8192]
    assert Axis(2, 2, 0, 1).ticks() == [2]


def test_labels_keep_their_distance_and_order():
    placed = spread([10, 10, 11, 90], 12, 0, 100)
    assert all(b - a >= 12 - 1e-3 for a, b in zip(sorted(placed), sorted(placed)[1:], strict=False))
    assert placed[3] == 90
    assert placed == sorted(placed)


def test_words_are_escaped():
    drawing = Drawing(10, 10, "<a>")
    drawing.text(0, 0, "<script>")
    drawing.dot(0, 0, "red", tip='"&')
    assert "<script>" not in drawing.svg()
    assert "&amp;" in drawing.svg()
