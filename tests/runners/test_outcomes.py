"""Every way in which a candidate can fail ends as a typed outcome, in bounded time."""

import itertools
import re
import textwrap

import pytest

from cab.schema import Status
from cab.store import ResultStore
from runners.executors import local
from runners.executors.events import Ended, Progressed, Started
from runners.executors.local import LocalExecutor
from runners.gate import note_passed
from runners.session import missing_cells, run_cells

MEAN = "return v.mean(-2, keepdim=True).expand(*q.shape[:-1], v.shape[-1])"
MASKED_MEAN = """
    if context is None or context.key_mask is None:
        return v.mean(-2, keepdim=True).expand(*q.shape[:-1], v.shape[-1])
    keep = context.key_mask[:, None, :, None].to(v.dtype)
    mean = (v * keep).sum(-2, keepdim=True) / keep.sum(-2, keepdim=True).clamp_min(1)
    return mean.expand(*q.shape[:-1], v.shape[-1])
"""


def trapped(trap):
    """A fair mechanism with a trap on long sources; cells are told that it has been examined."""
    return f"if k.shape[-2] > 40: {trap}\n" + textwrap.dedent(MASKED_MEAN).strip()


def run_one(cells, timeout=280.0, examined=True):
    events = []
    for cell in cells if examined else []:
        note_passed(cell)
    LocalExecutor(workers=1, timeout=timeout).run(cells, events.append)
    return events


def end_of(cells, **options):
    ends = [event for event in run_one(cells, **options) if isinstance(event, Ended)]
    assert len(ends) == len(cells) == 1
    return ends[0]


def test_a_candidate_that_writes_to_its_workers_pipe_is_ended(candidate, plan_of):
    pipes = "[n for n in range(3, 32) if os.path.exists(f'/proc/self/fd/{n}')]"
    trap = f"[os.write(n, b'forged\\n') for n in {pipes}] and time.sleep(600)"
    end = end_of(plan_of(candidate(trapped(trap))))
    assert end.status is Status.ERROR
    assert "no message of a worker" in end.message


def test_a_good_candidate_reports_start_progress_and_scores(candidate, plan_of):
    init = "self.gain = torch.nn.Parameter(torch.ones(()))"
    body = MASKED_MEAN.replace("return mean.expand", "return self.gain * mean.expand").replace(
        "return v.mean", "return self.gain * v.mean"
    )
    events = run_one(plan_of(candidate(body, init)))
    assert isinstance(events[0], Started)
    assert any(isinstance(event, Progressed) and event.loss for event in events)
    end = events[-1]
    assert end.status is Status.OK, end.message
    metrics = {row.metric: row for row in end.rows}
    assert metrics["mse"].value > 0
    assert metrics["validation_mse"].phase == "eval"
    assert metrics["train_loss"].samples
    assert metrics["mse"].parameters_attention == 2  # a gain for each of the two dimensions
    assert metrics["mse"].threads == 1


FAILURES = (
        ("raise RuntimeError('boom\\nbang')", Status.ERROR, "RuntimeError: boom bang"),
        ("raise torch.OutOfMemoryError('no room')", Status.OOM, "no room"),
        ("raise MemoryError", Status.OOM, "MemoryError"),
        ("torch.empty(1 << 50)", Status.OOM, "allocate memory"),
        ("raise NotImplementedError('not at this length')", Status.UNSUPPORTED, "this length"),
        ("return v.mean(-2, keepdim=True).expand(*q.shape[:-1], v.shape[-1]) * float('nan')",
         Status.DIVERGED, "nan"),
        ("os.kill(os.getpid(), signal.SIGKILL)", Status.ERROR, "killed by signal 9"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", Status.ERROR, "SIGSEGV"),
        ("print('last words', flush=True); os._exit(7)", Status.ERROR, "last words"),
)  # fmt: skip
"""What a candidate does, how its cell ends, and what is said of it"""


def written(candidate, plan_of, bodies, init=lambda number: "pass"):
    """A cell for each of them, in files of their own."""
    targets = [candidate(body, init(n), f"number_{n}") for n, body in enumerate(bodies)]
    return [cell for target in targets for cell in plan_of(target)]


def test_failures_are_typed_and_end_no_other_cell(candidate, plan_of):
    cells = written(candidate, plan_of, [trapped(trap) for trap, _, _ in FAILURES])
    ends = {event.cell.key: event for event in run_one(cells) if isinstance(event, Ended)}
    for cell, (trap, status, words) in zip(cells, FAILURES, strict=True):
        end = ends[cell.key]
        assert end.status is status, (trap, end.message)
        assert words in end.message, trap
        assert "\n" not in end.message, trap


def test_a_kill_is_out_of_memory_where_the_kernel_counts_it(candidate, plan_of, monkeypatch):
    kills = itertools.count()
    monkeypatch.setattr(local, "memory_kills", lambda: {"counter": next(kills)})
    end = end_of(plan_of(candidate(trapped("os.kill(os.getpid(), signal.SIGKILL)"))))
    assert end.status is Status.OOM
    assert "killed by the kernel" in end.message


EXITS = {
    "is killed before its end is told": "os.kill(os.getpid(), signal.SIGKILL)",
    "exits without telling its end": "os._exit(3)",
    "hangs before its end is told": "time.sleep(600)",
    "is killed after it": "send(sender, message), os.kill(os.getpid(), signal.SIGKILL)",
    "hangs after it": "send(sender, message), time.sleep(600)",
    "tells another end after it": "send(sender, message), send(sender, End(Status.ERROR, 'late'))",
    "writes nonsense after it": "send(sender, message), print('nonsense', file=sender._stream)",
}


WAITS = "hangs before its end is told"
"""Until its time is over: three quarters of a minute"""


def exiting(exits):
    return f"""
        from cab.schema import Status
        from runners.protocol import End, Sender
        send = Sender.send
        def last(sender, message):
            if not isinstance(message, End):
                return send(sender, message)
            {exits}
        Sender.send = last
    """


@pytest.mark.parametrize("hows", [
    [how for how in EXITS if how != WAITS],
    pytest.param([WAITS], marks=pytest.mark.slow),
])  # fmt: skip
def test_a_result_that_was_received_stays_however_the_worker_ends(
    candidate, plan_of, hows, tmp_path, monkeypatch
):
    monkeypatch.setattr(local, "_EXIT_SECONDS", 1.0)
    cells = written(
        candidate, plan_of, [MASKED_MEAN] * len(hows), lambda number: exiting(EXITS[hows[number]])
    )
    for cell in cells:
        note_passed(cell)
    store = ResultStore(tmp_path / "store")
    store.prepare()
    run_cells(cells, store, LocalExecutor(workers=1, timeout=45), lambda event: None)
    rows = store.read().to_pylist()
    assert {row["status"] for row in rows} == {"ok"}, [row["message"] for row in rows]
    assert [row["metric"] for row in rows].count("mse") == len(hows)
    assert missing_cells(cells, store) == []


def test_a_hanging_candidate_times_out(candidate, plan_of):
    body = trapped("time.sleep(600)")
    end = end_of(plan_of(candidate(body)), timeout=12.0)
    assert end.status is Status.TIMEOUT
    assert "12 s" in end.message


def test_a_candidate_that_reads_later_queries_is_not_trained(candidate, plan_of):
    body = "return (q.mean(-2, keepdim=True) + v.mean(-2, keepdim=True)).expand_as(q)"
    end = end_of(plan_of(candidate(body)), examined=False)
    assert end.status is Status.INVALID
    assert "contract" in end.message
    assert not end.rows


def test_a_cell_whose_model_leaks_is_invalid_and_final(candidate, plan_of, tmp_path):
    """Where the contract's checks cannot know of: at the sizes of this task's evaluation."""
    leak = "return v.mean(-2, keepdim=True) + q.mean(-2, keepdim=True).expand_as(q)"
    rule = "len(q) > 1 and q.shape[-2] == 64"  # every call of the evaluation, so whichever is drawn
    honest = textwrap.dedent(MASKED_MEAN).strip()
    cells = plan_of(candidate(f"if {rule}: {leak}\n{honest}"))
    note_passed(cells[0])
    store = ResultStore(tmp_path / "store")
    store.prepare()
    result = run_cells(cells, store, LocalExecutor(workers=1), lambda event: None)
    assert result.count(Status.INVALID) == 1, result.ended
    assert missing_cells(cells, store) == []
    rows = store.read().to_pylist()
    assert [row["status"] for row in rows] == ["invalid"]
    assert re.search(r"the built model, .* by \S+ of its size", rows[0]["message"])


def test_failed_cells_are_stored_and_only_errors_tried_again(candidate, plan_of, tmp_path):
    store = ResultStore(tmp_path / "store")
    store.prepare()
    oom = plan_of(candidate(trapped("raise MemoryError")))
    note_passed(oom[0])
    result = run_cells(oom, store, LocalExecutor(workers=1), lambda event: None)
    assert result.count(Status.OOM) == 1
    assert missing_cells(oom, store) == []
    rows = store.read().to_pylist()
    assert rows[0]["status"] == "oom"
    assert rows[0]["run_id"]


def test_a_changed_candidate_is_another_cell(candidate, plan_of):
    first = plan_of(candidate(MEAN))[0]
    second = plan_of(candidate(MEAN.replace("mean", "sum")))[0]
    assert first.attention == second.attention
    assert first.key != second.key
