import textwrap

import pytest

from cab.registries import ATTENTIONS
from cab.request import Request
from runners.planner import make_plan

HEADER = "import os, signal, time\nimport torch\nfrom cab import Attention\n\n"


@pytest.fixture
def candidate(tmp_path):
    """Write an attention whose forward has the given body; gives its ``file.py:Class``."""

    def write(body, init="pass", file="candidate"):
        path = tmp_path / f"{file}.py"
        source = (
            "class Candidate(Attention):\n"
            "    def __init__(self, spec):\n"
            "        super().__init__(spec)\n"
            f"{textwrap.indent(textwrap.dedent(init), ' ' * 8)}\n\n"
            "    def forward(self, q, k, v, context=None):\n"
            f"{textwrap.indent(textwrap.dedent(body), ' ' * 8)}\n"
        )
        path.write_text(HEADER + source)
        return f"{path}:Candidate"

    return write


@pytest.fixture
def plan_of():
    """The cells of one attention on the smallest task there is."""

    def plan(name, measures=("quality",), pattern="causal-cross", **fields):
        request = Request(
            attentions=[name],
            patterns=[pattern],
            tasks=["test-time-regression"],
            scale="tiny",
            seeds=1,
            measures=measures,
            **fields,
        )
        cells = make_plan(request, machine="test").cells
        own = ATTENTIONS.resolve(name).id
        return [cell for cell in cells if cell.attention == own]

    return plan
