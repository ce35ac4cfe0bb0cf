"""`cab run` before it measures: how long cells may take, and patterns that a class cannot hold."""

from dataclasses import replace

from cab.candidate import choose_candidate
from cab.cli import execution
from cab.cli.expectation import expected_times
from cab.patterns import Pattern
from cab.request import Request
from cab.result_sources import ResultSources
from cab.schema import Row
from cab.store import ResultStore
from runners.gate import Rejection
from runners.planner import make_plan

ASKED = Request(
    attentions=["lla"], patterns=["CC"], tasks=["summarization", "tts"], scale="tiny", seeds=2
)


def trained(attention, task, seconds, options="{}"):
    return Row(
        cell=f"{attention} {task}", kind="quality", attention=attention, pattern="causal-cross",
        task=task, scale="tiny", device="cpu", metric="train_time", value=seconds, unit="s",
        attention_options=options,
    )  # fmt: skip


def test_times_are_those_of_stored_cells_of_the_same_kind(tmp_path):
    store = ResultStore(tmp_path)
    store.prepare()
    store.append([trained("softmax", "summarization", 10.0)])
    store.append([trained("lla", "summarization", 30.0)])
    cells = make_plan(ASKED, machine="here").cells
    lines = expected_times(cells, ResultSources.at(tmp_path, reference=False), width=2)
    # Two seeds each: lla 30 s, softmax 10 s, and none, unseen, the median of both.
    assert lines[0] == "summarization: 6 cells, about 20.0 s each"
    assert lines[1].startswith("training: about 60.0 s with 2 at a time")
    assert lines[2] == "times not known of 6 cells: none like them is stored"
    assert lines[3].startswith("cost: 4 processes")


def test_times_are_for_the_steps_that_are_asked_for(tmp_path):
    store = ResultStore(tmp_path)
    store.prepare()
    store.append([trained("softmax", "summarization", 40.0, '{"train.steps": 4.0}')])
    store.append([trained("lla", "summarization", 99.0, '{"train.steps": 0}')])
    sources = ResultSources.at(tmp_path, reference=False)
    for steps, seconds in ((1.0, "10.0 s"), (0.5, "5.00 s")):
        asked = replace(ASKED, steps=steps, tasks=["summarization"], measures=["quality"])
        lines = expected_times(make_plan(asked, machine="here").cells, sources, width=1)
        assert lines[0] == f"summarization: 6 cells, about {seconds} each"


def test_an_undecorated_class_is_measured_where_it_holds(tmp_path, monkeypatch, capsys):
    path = tmp_path / "mine.py"
    path.write_text(
        "from cab import Attention\n\n\nclass Mine(Attention):\n"
        "    def forward(self, q, k, v, context=None):\n        return v\n"
    )
    asked = Request(
        attentions=[f"{path}:Mine"],
        patterns=["CS", "CC"],
        tasks=["summarization"],
        scale="tiny",
        seeds=1,
        measures=["quality"],
    )
    plan = make_plan(asked, machine="here")
    target = choose_candidate(f"{path}:Mine").target
    refusal = Rejection("mine", target, "causal-self", {"no leak": "looks [ahead]"})
    monkeypatch.setattr(execution, "_examine", lambda todo: [refusal])
    done = execution.perform(plan, [], None, None, leave_out=False, named=False)
    assert done.code is None
    assert done.plan.patterns == [Pattern.CAUSAL_CROSS]
    assert {cell.pattern for cell in done.plan.cells} == {"causal-cross"}
    assert "mine cannot hold causal-self: left out (no leak: looks [ahead])" in (
        " ".join(capsys.readouterr().out.split())
    )
    named = execution.perform(plan, [], None, None, leave_out=False, named=True)
    assert named.code == 2
