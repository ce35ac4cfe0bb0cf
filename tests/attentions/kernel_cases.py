"""What the tests of the Triton kernels share: how they run, inputs and error measures.

On a machine without a GPU the kernels run in Triton's interpreter, which has to be chosen before
Triton is first imported: a test module imports this one before any kernel. That skips it where
kernels cannot run at all.
"""

import importlib.util
import os
import subprocess
import sys
import warnings

import pytest
import torch

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)
if not torch.cuda.is_available() and "triton" not in sys.modules:
    os.environ["TRITON_INTERPRET"] = "1"

import triton
import triton.language as tl

from attentions.lla.kernels import backward_kernels, decode, forward
from attentions.lla.kernels.common import INTERPRETED

DEVICE = "cpu" if INTERPRETED or not torch.cuda.is_available() else "cuda"
RUNNABLE = DEVICE == "cuda" or type(tl.zeros).__name__ == "InterpretedFunction"
KERNELS = (
    forward._forward_kernel,
    backward_kernels.query_kernel,
    backward_kernels.key_kernel,
    decode._moment_kernel,
)
MARKS = [
    pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION"),
    pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning"),
]


@triton.jit
def _count(out, length):
    for i in range(length):
        tl.store(out + i, i)


if RUNNABLE and DEVICE == "cpu":
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            _count[(1,)](torch.zeros(2), 2)
    except triton.runtime.errors.InterpreterError as broken:
        # Triton up to 3.6 with NumPy from 2.4 on.
        pytest.skip(f"Triton's interpreter cannot loop here: {broken}", allow_module_level=True)


@pytest.fixture(autouse=True)
def one_configuration(request, monkeypatch):
    """For every test of a module that takes it over under any name."""
    if not RUNNABLE and request.node.name != "test_in_a_fresh_process":
        pytest.skip("Triton was imported before; see test_in_a_fresh_process")
    for kernel in KERNELS:
        # On a GPU each would take a compilation of every kernel, in every test.
        monkeypatch.setattr(kernel, "configs", kernel.configs[:1])


def run_in_a_fresh_process(module):
    """Run the tests of a module's file where Triton has not been imported yet."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", module]
    done = subprocess.run(
        command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def draw(length_q, length_k, dim, dim_v=None, n=2, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((n, length_q, dim), (n, length_k, dim), (n, length_k, dim_v or dim))
    return [torch.randn(s, generator=generator).to(DEVICE, dtype) for s in shapes]


def padding(n, length_k):
    """Every third key hidden; in the last sequence all of them."""
    mask = (torch.arange(length_k, device=DEVICE) % 3 != 1).repeat(n, 1)
    mask[-1] = False
    return mask
