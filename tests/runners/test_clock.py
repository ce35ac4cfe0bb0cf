"""The check of the clocks themselves."""

import time

import pytest

from cab.errors import ContractError
from runners.efficiency import clock


@pytest.fixture
def paused(monkeypatch):
    """A machine so busy that time passes between any two looks at a clock."""
    true = clock._system_ns

    def now():
        time.sleep(0.02)
        found = true()
        time.sleep(0.02)
        return found

    monkeypatch.setattr(clock, "_system_ns", now)


@pytest.mark.usefixtures("paused")
def test_a_pause_between_two_clocks_is_no_tampering():
    tampering = clock.Tampering()
    for _ in range(5):
        tampering.require_none()


@pytest.mark.parametrize("factor", [0.1, 0.9, 1.2])
def test_a_clock_at_another_pace_is_tampering(monkeypatch, factor):
    true, began = time.perf_counter_ns, time.perf_counter_ns()
    monkeypatch.setattr(clock, "perf_counter_ns", lambda: began + round(factor * (true() - began)))
    tampering = clock.Tampering()
    time.sleep(0.2)
    with pytest.raises(ContractError, match=r"the clock says .* where the system says"):
        tampering.require_none()
