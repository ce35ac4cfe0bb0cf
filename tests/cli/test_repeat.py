"""``cab run`` measures what others disturbed again at its end, and says how that went."""

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from cab.cli.app import main
from cab.cli.console import console
from cab.schema import Status
from cab.store import ResultStore
from runners.again import TRIES
from runners.executors.events import Ended, Started
from runners.rows import identity

WORDS = ("run", "--attn", "linear-elu", "-p", "CC", "--scale", "tiny", "--seeds", "1", "--device",
         "cpu", "--measure", "latency", "--no-reference", "--out", "store")  # fmt: skip
POINTS = [(phase, length) for length in (256, 512, 1024) for phase in
          ("forward", "forward_backward")]  # fmt: skip
CELLS = 2


class Machine:
    """Runs cells by making rows up; a word says whether their times are noisy, run by run."""

    def __init__(self, *noisy):
        self.noisy, self.runs = list(noisy), []

    def run(self, cells, handle):
        for cell in cells:
            handle(Started(cell))
            noisy = self.noisy.pop(0) if self.noisy else False
            self.runs.append(cell.only)
            rows = [self.row(cell, point, noisy) for point in cell.only or POINTS]
            handle(Ended(cell, Status.OK, "", rows, 1.0))

    def row(self, cell, point, noisy):
        phase, length = point
        value = 1.0 if noisy else 0.001
        return replace(
            identity(cell), recorded_at=datetime.now(UTC), phase=phase, length_q=length,
            length_k=length, batch=1, heads=4, head_dim=16, dtype="float32", metric="latency",
            value=value, samples=[value] * 4, unit="s", higher_is_better=False, device_name="A CPU",
            threads=1, environment=json.dumps({"noisy": noisy, "other_cores": 2.0 * noisy}),
        )  # fmt: skip

    def width(self, cells):
        return 1


@pytest.fixture
def ran(monkeypatch, capsys, tmp_path):
    """Output of the command on a machine, which is quiet afterwards or not."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "width", 200)

    def run(machine, *words, quiet=True):
        monkeypatch.setattr("cab.cli.run.chosen_executor", lambda *given: machine)
        monkeypatch.setattr("runners.again.wait_for_quiet", lambda seconds: quiet)
        monkeypatch.setattr(sys, "argv", ["cab", *WORDS, *words])
        with pytest.raises(SystemExit) as end:
            main()
        output, errors = capsys.readouterr()
        assert end.value.code == 0, output + errors
        return output

    return run


def latencies():
    rows = ResultStore("store").read().to_pandas()
    last = rows.sort_values("recorded_at").groupby(["cell", "phase", "length_q"]).last()
    return set(last["value"])


def test_what_was_disturbed_is_measured_again(ran):
    machine = Machine(True)
    text = ran(machine)
    assert "6 points of cost disturbed by others: measured again" in text
    assert "still disturbed" not in text
    assert "disturbed by what else ran here: " not in text.split("Cost, forward", 1)[1]
    assert len(machine.runs) == CELLS + 1
    assert latencies() == {0.001}


def test_a_quiet_run_says_nothing_of_it(ran):
    machine = Machine()
    assert "disturbed" not in ran(machine)
    assert machine.runs == [()] * CELLS


def test_what_stays_disturbed_is_named_with_what_to_do(ran):
    machine = Machine(*[True] * 20)
    text = ran(machine)
    assert len(machine.runs) == CELLS * (1 + TRIES)
    assert "12 points still disturbed" in text
    assert "12 measurements (" in text.split("Cost, forward", 1)[1]
    assert text.count("--retry disturbed") == 2
    # As the text says: later, on a quieter machine.
    later = Machine()
    text = ran(later, "--retry", "disturbed")
    assert f"{CELLS} to run" in text
    assert "disturbed" not in text
    assert latencies() == {0.001}
    assert "0 to run" in ran(Machine(), "--retry", "disturbed")


def test_a_machine_that_stays_busy_is_not_kept_busier(ran):
    machine = Machine(True, True)
    assert "12 points still disturbed" in ran(machine, quiet=False)
    assert len(machine.runs) == CELLS
