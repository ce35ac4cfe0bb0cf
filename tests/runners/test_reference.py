"""Filling the reference results: what is missing, in the right order, kept small and whole."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from cab import Artifact, Pattern, Scale
from cab.controls import REFERENCE_CONTROLS
from cab.errors import StoreError
from cab.schema import Row, Status
from cab.store import ResultStore
from runners import reference
from runners.cells import CellFactory
from runners.compaction import compact
from runners.executors.events import Ended, Started
from runners.reference import Wish, fill, wanted_cells
from runners.rows import identity, measured

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path):
    found = ResultStore(tmp_path / "reference")
    found.prepare()
    return found


def wish(**fields):
    base = {"attentions": ["local"], "patterns": [Pattern.NONCAUSAL_SELF], "tasks": ["masked-lm"],
            "seeds": 2, "scale": Scale.TINY}  # fmt: skip
    return Wish(**{**base, **fields})


def test_controls_come_first_then_costs_then_scores(store):
    cells = wanted_cells(wish(), store, CellFactory("cpu", "a machine"))
    kinds = [(c.kind, c.attention in REFERENCE_CONTROLS) for c in cells]
    assert kinds == [("quality", True)] * 6 + [
        ("efficiency", True), ("efficiency", True), ("efficiency", False),
    ] * 2 + [("quality", False)] * 2  # fmt: skip
    assert [c.seed for c in cells[:6]] == [0, 0, 0, 1, 1, 1]
    assert {c.machine for c in cells if c.kind == "efficiency"} == {"a machine"}


def scored(store, attention, value, seed):
    make = CellFactory("cpu")
    (cell,) = [
        c for c in wanted_cells(wish(), store, make)
        if c.attention == attention and c.kind == "quality" and c.seed == seed
    ]  # fmt: skip
    row = measured(identity(cell), phase="eval", metric="bits_per_masked_character", value=value)
    store.append([replace(row, run_id="r", unit="bit", higher_is_better=False)])


@pytest.mark.parametrize(("none", "asked"), [(2.0, True), (1.001, False)])
def test_a_pair_that_measures_nothing_gets_its_controls_alone(store, none, asked):
    for seed in range(2):
        scored(store, "softmax", 1.0 + seed / 100, seed)
        scored(store, "none", none + seed / 100, seed)
    found = wanted_cells(wish(costs=False), store, CellFactory("cpu"))
    assert {c.attention for c in found} == (
        {*REFERENCE_CONTROLS, "local"} if asked else set(REFERENCE_CONTROLS)
    )


class Pretended:
    """An executor whose cells end at once."""

    def width(self, cells):
        return 2

    def run(self, cells, on_event):
        for cell in cells:
            on_event(Started(cell))
            row = measured(identity(cell), phase="eval", metric="mse", value=1.0)
            on_event(Ended(cell, Status.OK, "", [row], 10.0))


def test_filling_goes_on_where_it_was(store, monkeypatch):
    monkeypatch.setattr(reference, "LocalExecutor", Pretended)
    cells = wanted_cells(wish(), store, CellFactory("cpu"))
    assert fill(cells[:5], store, 1e9) == 5
    assert fill(cells, store, 1e9) == len(cells) - 5
    assert fill(cells, store, 1e9) == 0


def test_no_cell_is_begun_that_the_budget_has_no_time_for(store, monkeypatch):
    monkeypatch.setattr(reference, "LocalExecutor", Pretended)
    cells = wanted_cells(wish(), store, CellFactory("cpu"))
    assert fill(cells, store, 20.0) == 0  # a cell is expected to take longer
    assert fill(cells, store, 60.0) > 0


def row(cell, run, hours, seed=0, **fields):
    base = {
        "kind": "quality", "attention": "local", "pattern": "causal-self", "task": "masked-lm",
        "scale": "small", "device": "cpu", "metric": "mse", "value": 1.0, "phase": "eval",
    }  # fmt: skip
    when = START + timedelta(hours=hours)
    return Row(cell=cell, run_id=run, recorded_at=when, seed=seed, **{**base, **fields})


def test_compaction_keeps_the_newest_run_of_the_newest_cell(store):
    store.append([row("old", "r1", 0, value=1.0)])
    store.append([row("new", "r2", 2, value=2.0)])
    store.append([row("new", "r3", 3, value=3.0)])
    store.append([row("other", "r1", 0, seed=1)])
    store.append([row("older", "r0", -1, device_name="of another machine")])
    store.append([row("cost", "r1", 0, kind="efficiency", device_name="one")])
    store.append([row("cost2", "r1", 0, kind="efficiency", device_name="another")])
    for cell in ("old", "new"):
        store.attach(cell, [Artifact("sample", "txt", "a sample", b"text")])
    written = compact(store, 2**20)
    assert store.has_artifacts("new")
    assert not store.has_artifacts("old")
    assert sorted(path.name for path in store.files()) == sorted(path.name for path in written)
    assert len(written) == 2
    kept = store.read(["cell", "value"]).to_pylist()
    assert sorted((r["cell"], r["value"]) for r in kept) == [
        ("cost", 1.0), ("cost2", 1.0), ("new", 3.0), ("other", 1.0),
    ]  # fmt: skip
    assert compact(store, 2**20) == written
    assert len(store.read(["cell"])) == 4


def test_samples_of_first_seeds_are_kept_as_far_as_there_is_room(store, monkeypatch):
    cells = {("softmax", 0): 100, ("abc", 0): 100, ("local", 0): 100, ("softmax", 1): 10,
             ("tiny", 0): 20}  # fmt: skip
    for number, ((attention, seed), size) in enumerate(cells.items()):
        cell = f"{attention}{seed}"
        store.append([row(cell, "r", number, seed=seed, attention=attention)])
        store.attach(cell, [Artifact("sample", "txt", "a sample", b"x" * (size // 2))])
    store.append([row("elsewhere", "r", 9, task="other", attention="local")])
    store.attach("elsewhere", [Artifact("sample", "txt", "a sample", b"x" * 60)])
    monkeypatch.setattr(
        reference, "SAMPLE_BYTES",
        sum(p.stat().st_size for p in store.made.files(["softmax0", "abc0", "tiny0"])),
    )  # fmt: skip
    compact(store, 2**20, lambda runs: reference.sampled(runs, store))
    kept = {cell for cell in (*(f"{a}{s}" for a, s in cells), "elsewhere")
            if store.has_artifacts(cell)}  # fmt: skip
    # A control first, then in alphabetical order what there is room for.
    assert kept == {"softmax0", "abc0", "tiny0", "elsewhere"}
    assert len(store.read(["cell"])) == 6


def test_compaction_never_exceeds_its_size(store):
    store.append([row(f"cell{i}", "r", 0, seed=i, message=f"{i} {i * 7919}") for i in range(500)])
    before = store.files()
    with pytest.raises(StoreError, match="it may have"):
        compact(store, 1000)
    assert store.files() == before
    assert not store.beside.temporaries()
    store.attach("cell0", [Artifact("sample", "txt", "a sample", bytes(10_000))])
    with pytest.raises(StoreError, match="it may have"):
        compact(store, sum(path.stat().st_size for path in compact(store, 2**20)))
