"""Energy is a counter's difference over a window, divided by the calls in it."""

import time

import pytest
import torch

from runners.efficiency.energy import energy_counter, idle_watts, measure_energy
from runners.outcome import UnsupportedError

IDLE_W, CALL_J = 50.0, 2.0


class Device:
    """Draws power at rest, and energy for each call."""

    def __init__(self):
        self.calls, self.began = 0, time.monotonic()

    def joules(self):
        return IDLE_W * (time.monotonic() - self.began) + CALL_J * self.calls

    def call(self):
        self.calls += 1
        time.sleep(0.001)


def test_net_energy_is_that_of_the_calls():
    device = Device()
    idle = idle_watts(device.joules, 0.5)
    assert idle == pytest.approx(IDLE_W, rel=0.05)
    used = measure_energy(device.joules, device.call, lambda: None, idle, 0.5)
    assert used.seconds >= 0.5
    assert used.calls > 10
    assert used.net == pytest.approx(CALL_J, rel=0.05)
    assert used.gross == pytest.approx(CALL_J + IDLE_W * used.seconds / used.calls, rel=0.05)


def test_a_cpu_has_none():
    with pytest.raises(UnsupportedError, match="not available"):
        energy_counter(torch.device("cpu"))
