"""Sizes, sweeps and objects in words."""

import subprocess
import sys

import pytest
import torch

import cab
from cab.benching.order import MOST_PROCESSES, BenchOrder
from cab.benching.sizes import parse_dtypes, parse_numbers, parse_percent
from cab.benching.targets import name_of
from cab.discovery import scan
from cab.errors import UnknownEntryError, UsageError
from cab.kernel_names import KERNELS, of_kernel
from cab.registries import ATTENTIONS
from tests.cab import right_mechanisms


def test_lists():
    assert parse_numbers("--heads", "8, 16,8", 64) == (8, 16)
    assert parse_dtypes("fp32,bfloat16,float32") == (torch.float32, torch.bfloat16)
    assert parse_percent("--tolerance", "2.5 %") == 0.025


@pytest.mark.parametrize(
    ("parse", "complaint"),
    [
        (lambda: parse_numbers("--heads", "8,", 64), "--heads"),
        (lambda: parse_numbers("--heads", "65", 64), "at most 64"),
        (lambda: parse_numbers("--heads", "0", 64), "at least 1"),
        (lambda: parse_dtypes("fp32,int8"), "unknown dtype"),
        (lambda: parse_percent("--tolerance", "-1"), "percentage"),
        (lambda: parse_percent("--tolerance", "1001"), "percentage"),
    ],
)
def test_lists_that_make_no_sense(parse, complaint):
    with pytest.raises(UsageError, match=complaint):
        parse()


def order(**sizes):
    return BenchOrder(attentions=["lla"], patterns=["CS"], **sizes)


def test_a_sweep_is_a_product_and_an_absurd_one_is_counted():
    order(batch="1,2", heads="1,2,4", dtype="fp32,bf16").check()
    most = ",".join(str(n) for n in range(1, 65))
    with pytest.raises(UsageError, match=f"12,288 processes .* {MOST_PROCESSES:,} at most"):
        order(batch=most, heads=most).check()


def test_kernels_are_named_and_not_listed():
    listed = {found.target for found in scan("attentions", "register_attention")}
    for name in KERNELS:
        entry = ATTENTIONS.resolve(of_kernel(name))
        assert entry.id == name.replace(":", "-")
        assert entry.target not in listed
        assert {*cab.Pattern} == set(entry.info.patterns)
    assert of_kernel("lla") == "lla"
    with pytest.raises(UnknownEntryError, match="sdpa:flash"):
        of_kernel("sdpa:flsh")


def test_a_kernel_that_does_not_run_here_is_refused_before_anything_is_timed():
    sizes = {"lengths": "64", "phases": ["forward"], "device": "cpu", "processes": 1}
    order(baseline="sdpa:flash", **sizes).plan()
    with pytest.raises(UsageError, match=r"sdpa:cudnn does not run here .* other kernels"):
        order(baseline="sdpa:cudnn", **sizes).plan()
    with pytest.raises(UsageError, match="no backward pass on a CPU"):
        order(baseline="flex", **sizes | {"phases": ["forward_backward"]}).plan()


def test_what_compiles_needs_a_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "there-is-no-such-compiler")
    with pytest.raises(UsageError, match="C\\+\\+ compiler"):
        order(compiled=True, lengths="64", device="cpu").plan()


def test_objects_are_named_by_their_place(tmp_path):
    assert name_of("lla") == "lla"
    found = name_of(right_mechanisms.__dict__[_a_class(right_mechanisms)])
    assert ATTENTIONS.resolve(found)
    for nowhere in (lambda q, k, v: v, torch.nn.Linear(1, 1)):
        with pytest.raises(UsageError, match="top level of a file"):
            name_of(nowhere)
    script = "import cab\ndef f(q, k, v):\n    return v\ncab.bench(f, pattern='NS')"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert "interactive session" in done.stderr


def _a_class(module):
    return next(
        name
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, cab.Attention)
        and value.__module__ == module.__name__
    )
